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


def test_plugin_xdist_container_tests_run_first_in_one_worker(tmp_path):
    """Started twice, they would take twice as long; started last, the whole run would wait for them."""
    for name in ("airflow/test_a", "airflow/test_b", "airflow/test_c", "containers/test_d", "containers/test_e"):
        file = tmp_path / "tests" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "xdist", "-p", "tests.plugin_xdist"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-n", "2", "--dist", "loadfile", "--rootdir", str(tmp_path)],
        cwd=tmp_path,
        env={**env, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert len(lines) == 15
    (process,) = {line["process"] for line in lines if line["file"] in {"test_d.py", "test_e.py"}}
    of_it = sorted((line for line in lines if line["process"] == process), key=lambda line: line["at"])
    assert [line["file"] for line in of_it[:6]] == ["test_d.py"] * 3 + ["test_e.py"] * 3
