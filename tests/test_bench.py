"""The benchmark runs, and the documentation shows its figures. Durations are not tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".dev"))
from bench import __main__ as bench  # noqa: E402
from bench.rows import Figure, Row, missed, names_in, table  # noqa: E402

sys.path.remove(str(ROOT / ".dev"))


def test_bench_table_of_the_documentation_has_every_row():
    """And no other row."""
    shown = bench.PAGE.read_text().partition(bench.BEGIN)[2].partition(bench.END)[0]
    assert names_in(shown) == [(row.subject, row.peer) for row in bench.rows().values()]


def test_bench_table_shows_reason_of_cannot_run():
    """The others keep their figures."""
    rows = {"a": Row("this", "that"), "b": Row("this", "another", "ms"), "c": Row("this", "a third", "ms")}
    text = table(rows, {"a": Figure(1.0, 4.0), "b": Figure(2.0, cannot="cannot be run: exit code 1: no module")})
    assert text.splitlines()[2:] == [
        "| this | 1.00 s | that | 4.00 s | 0.25 |",
        "| this | 2 ms | another | cannot be run: exit code 1: no module |  |",
        "| this |  | a third | not measured |  |",
    ]


def test_bench_table_shows_target_of_ratio():
    """Beside the ratio, whether or not it is met."""
    rows = {"a": Row("this", "that", at_most=1), "b": Row("this", "another", at_most=0.5)}
    figures = {"a": Figure(1.0, 4.0), "b": Figure(3.0, 4.0)}
    assert [line.split("|")[-2].strip() for line in table(rows, figures).splitlines()[2:]] == [
        "0.25 (at most 1)",
        "0.75 (at most 0.5)",
    ]
    assert missed(rows, figures) == ["this: 0.75, must be at most 0.5"]


def test_bench_with_table_replaces_table():
    """The text around it stays."""
    page = f"before\n{bench.BEGIN}old\n{bench.END}after\n"
    assert bench.with_table(page, "new") == f"before\n{bench.BEGIN}\nnew\n{bench.END}after\n"


@pytest.mark.slow
@pytest.mark.parametrize("part", bench.PARTS)
def test_bench_part_measures_all_its_rows(part):
    """With the smallest sizes that there are."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", part, "--tiny"],
        cwd=ROOT / ".dev",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(bench.rows([part]))
    assert not any("not measured" in row for row in rows)
