"""Tests that run side by side: the plugin that shares them out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import json, os, pathlib, time, pytest

@pytest.mark.parametrize("number", range(3))
def test_some(number):
    line = {"file": os.path.basename(__file__), "process": os.environ["PYTEST_XDIST_WORKER"], "at": time.time()}
    with open(pathlib.Path(__file__).parents[2] / "lines", "a") as lines:
        lines.write(json.dumps(line) + "\\n")
"""


def test_tests_of_the_containers_and_of_airflow_run_in_one_process_each_and_begin_first(tmp_path):
    """Side by side, they would leave no time to each other; begun last, everybody would wait for them."""
    names = ("core/test_a", "core/test_b", "airflow/test_c", "airflow/test_d", "containers/test_e", "containers/test_f")
    for name in names:
        file = tmp_path / "tests" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.side_by_side"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-n", "2", "--dist", "loadfile", "--rootdir", str(tmp_path)],
        cwd=tmp_path,
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert len(lines) == 18
    first = {process: [] for process in ("gw0", "gw1")}
    for line in sorted(lines, key=lambda line: line["at"]):
        first[line["process"]].append(line["file"])
    assert sorted(files[:6] for files in first.values()) == [
        ["test_c.py"] * 3 + ["test_d.py"] * 3,
        ["test_e.py"] * 3 + ["test_f.py"] * 3,
    ]
