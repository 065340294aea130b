"""Cost of running a workflow of many small modules from the shell."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from bench.clock import CannotRun, Side, alternating, beside, clean_environment, python_of, run_side
from bench.rows import Figure, Row
from bench.tasks import bare_python

ROWS = {
    "run_xargs": Row("200 empty modules, two at a time: `sppe run -j 2`", "`xargs -P 2` of `python -m empty`"),
    "run_depio": Row("the same", "depio: 200 functions that run `python -m empty`, two at a time"),
    "run_sewerpipe": Row("200 empty modules in a chain: `sppe run`", "sewerpipe: the same chain"),
}
HOW = "workflows: seconds from the start of the command to its end, medians of 3 runs"

_BESIDE = """\
from airflow_provider_sewer import Task
for number in range(COUNT):
    Task(f"task {number}", "empty", {"number": number})
"""
_CHAIN = """\
from functools import reduce
from PACKAGE import Task
tasks = [Task(f"task {number}", "empty", {"number": number}) for number in range(COUNT)]
chain = reduce(lambda before, after: before >> after, tasks)
"""
_WORKFLOW = """\
from airflow_provider_sewer import workflow
@workflow
def chained():
    chain.run()
"""


def measure(*, tiny: bool = False) -> dict[str, Figure]:
    """Return the figures.

    :param tiny: two modules each.
    """
    count, times = (2, 1) if tiny else (200, 3)
    with tempfile.TemporaryDirectory(prefix="sewer-bench-") as folder:
        home = Path(folder)
        python = bare_python(home)
        flow, chain, other = home / "flow.py", home / "chain.py", home / "sewerpipe_chain.py"
        flow.write_text(f"COUNT = {count}\n{_BESIDE}")
        chain.write_text(f"COUNT = {count}\n{_CHAIN.replace('PACKAGE', 'airflow_provider_sewer')}{_WORKFLOW}")
        other.write_text(f"COUNT = {count}\n{_CHAIN.replace('PACKAGE', 'sewerpipe.task')}")
        side_by_side = alternating(
            {
                "sppe": _command(home, [_sppe(), "run", "-p", flow, "-j", 2, "-i", python, "--workdir", home]),
                "xargs": _command(home, ["sh", "-c", f'seq {count} | xargs -P 2 -n 1 "$0" -m empty --number', python]),
                "depio": _side(home, "depio", python, count),
            },
            times,
        )
        in_a_chain = alternating(
            {
                "sppe": _command(home, [_sppe(), "run", "-p", chain, "-i", python, "--workdir", home]),
                "sewerpipe": _side(home, "sewerpipe", other, python),
            },
            times,
        )
    return {
        "run_xargs": beside(side_by_side["sppe"], side_by_side["xargs"]),
        "run_depio": beside(side_by_side["sppe"], side_by_side["depio"]),
        "run_sewerpipe": beside(in_a_chain["sppe"], in_a_chain["sewerpipe"]),
    }


def _sppe() -> Path:
    return python_of("airflow").with_name("sppe")


def _command(home: Path, argv: list[object]) -> Side:
    """Return a side that measures the run time of a command."""

    def run() -> float:
        start = time.perf_counter()
        done = subprocess.run(
            list(map(str, argv)), cwd=home, env=clean_environment(), capture_output=True, text=True, check=False
        )
        took = time.perf_counter() - start
        if done.returncode:
            raise CannotRun(f"exit code {done.returncode}: {done.stderr.strip()[-200:]}")
        return took

    return run


def _side(home: Path, environment: str, *arguments: object) -> Side:
    """Return a side that measures a peer's script in the peer's own environment."""

    def run() -> float:
        start = time.perf_counter()
        run_side(python_of(environment), f"run_{environment}", *arguments, cwd=home)
        return time.perf_counter() - start

    return run
