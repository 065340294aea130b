"""Fixtures of the task group tests: a module with a given exit code, and a DAG with the group of a workflow file."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

JOB = """
import argparse, os, sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--exit", type=int, default=0)
parser.add_argument("--in", dest="sources", action="append", default=[])
parser.add_argument("--out")
given = parser.parse_args()
texts = [Path(each).read_text() for each in given.sources]
if given.out:
    Path(given.out).write_text("made")
print(os.environ.get("COLOUR"), *texts)
sys.exit(given.exit)
"""

#: Writes its arguments as its result.
ECHO = """
    import json, os, sys
    with open(os.environ["SEWER_RESULT_FILE"], "w") as file:
        json.dump({"argv": sys.argv[1:], "A": os.environ.get("A"), "cwd": os.getcwd()}, file)
"""
FUNCTIONS = """
    def give(**kwargs):
        return kwargs

    def write(out, text="x"):
        with open(out, "w") as file:
            file.write(str(text))
        return text
"""


@pytest.fixture
def expand(tmp_path):
    """Expand a workflow file's source in a new DAG, as the group ``g``; return the group."""
    from airflow.sdk import DAG

    from airflow_provider_sewer.task_group import SewerTaskGroup, sewer_task_group

    def make(source: str, *, dag_args: dict | None = None, **arguments) -> SewerTaskGroup:
        (tmp_path / "job.py").write_text(JOB)
        (tmp_path / "flow.py").write_text(
            "from airflow_provider_sewer import Dependency, External, Product, Task, workflow\n" + dedent(source)
        )
        with DAG("dag", schedule=None, default_args=dag_args or {}):
            defaults = {"group_id": "g", "python": sys.executable, "workdir": tmp_path}
            return sewer_task_group(tmp_path / "flow.py", **{**defaults, **arguments})

    return make


@pytest.fixture
def file(tmp_path):
    """Write a workflow file beside the modules of its tasks; return its path."""
    (tmp_path / "job.py").write_text(dedent(ECHO))
    (tmp_path / "functions.py").write_text(dedent(FUNCTIONS))

    def write(source: str) -> Path:
        path = tmp_path / "flow.py"
        path.write_text("from airflow_provider_sewer import *\n" + dedent(source))
        return path

    return write


@pytest.fixture
def where(tmp_path):
    """Return group arguments with which tasks find these modules."""
    return {"python": sys.executable, "env": {"PYTHONPATH": str(tmp_path)}, "workdir": str(tmp_path)}
