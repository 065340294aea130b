"""The README of waluigi: its tasks, targets and pipeline, line by line where the words differ.

A task of waluigi is a class of one task each, and a target is its product; here a function of a module beside the file,
and a product.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import airflow_provider_sewer

ROOT = Path(airflow_provider_sewer.__file__).parent.parent

#: `UpperCase.run`, and the three steps of the pipeline; polars is left out, for it is not their subject.
STEPS = """
import os
from pathlib import Path
from typing import Annotated

from airflow_provider_sewer import Dependency, External, Product, task


@task(run_when="missing")
def uppercase(file: Annotated[Path, External], output: Annotated[Path, Product]):
    output.write_text(file.read_text().upper())


@task(run_when="missing")
def quality_signals(infile: Annotated[Path, External], output: Annotated[Path, Product(temporary=True)]):
    output.write_text(f"{len(infile.read_text())} characters")


@task(run_when="missing")
def filtered(
    raw: Annotated[Path, External], signals: Annotated[Path, Dependency], output: Annotated[Path, Product]
):
    if os.environ.get("FAILS"):
        output.write_text("half of it")
        raise SystemExit(1)
    output.write_text(f"{raw.read_text()}: {signals.read_text()}")
"""

UPPER_CASE = """
from steps import uppercase

uppercase("letter.txt", "letter.txt_uppercased")
"""

#: The branches of the last example, two of them.
PIPELINE = """
import os

from steps import filtered, quality_signals

root = "folder"
for branch in ("xaa", "xab"):
    raw = os.path.join(root, "raw", branch)
    signals = os.path.join(root, "signals", branch)
    quality_signals(raw, signals)
    filtered(raw, signals, os.path.join(root, "filtered", branch))
"""


@pytest.fixture
def sppe(tmp_path):
    """Write a workflow file beside the steps, and run it as users do."""
    (tmp_path / "steps.py").write_text(dedent(STEPS))

    def run(source: str, *arguments: str) -> subprocess.CompletedProcess:
        (tmp_path / "flow.py").write_text(source)
        command = [sys.executable, "-c", "from airflow_provider_sewer.cli import main; main()", "run", "-p", "flow.py"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*command, "-i", sys.executable, *arguments],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def raw(tmp_path):
    """Write an external input."""
    for branch in ("xaa", "xab"):
        (tmp_path / "folder" / "raw").mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "raw" / branch).write_text(f"the text of {branch}")
    return tmp_path / "folder"


def test_task_produces_upper_case_file(sppe, tmp_path):
    """Its target stands in the name of the other one; once it exists, nothing is run."""
    (tmp_path / "letter.txt").write_text("hello")

    assert sppe(UPPER_CASE).returncode == 0
    assert (tmp_path / "letter.txt_uppercased").read_text() == "HELLO"
    assert "up to date" in sppe(UPPER_CASE).stderr


def test_missing_external_input_is_reported_before_run(sppe):
    """With exit code 2, where the original waits or exits with 0."""
    done = sppe(UPPER_CASE)

    assert done.returncode == 2
    assert "task 'uppercase' needs 'letter.txt', which is external and does not exist" in done.stderr


def test_pipeline_runs_all_branches_and_removes_temporary_products(sppe, raw):
    """Intermediate products are removed when their consumers have succeeded."""
    assert sppe(PIPELINE).returncode == 0
    assert (raw / "filtered" / "xab").read_text() == "the text of xab: 15 characters"
    assert not [path for path in (raw / "signals").iterdir() if path.name != ".sewer"]


def test_failed_run_exits_with_1_without_partial_product(sppe, raw):
    """Intermediate products stay for another try, which does not rebuild them."""
    failed = sppe(PIPELINE, "--env", "FAILS=1")
    assert failed.returncode == 1
    assert not (raw / "filtered" / "xaa").exists()
    assert (raw / "filtered" / "xaa.failed").read_text() == "half of it"
    assert (raw / "signals" / "xaa").exists()

    again = sppe(PIPELINE)
    assert again.returncode == 0
    assert "[quality_signals] up to date" in again.stderr
    assert (raw / "filtered" / "xaa").read_text() == "the text of xaa: 15 characters"


def test_missing_output_is_reported(sppe, raw):
    """A run that returns without its target has failed."""
    source = (raw.parent / "steps.py").read_text().replace('    output.write_text(f"{len', '    (f"{len')
    (raw.parent / "steps.py").write_text(source)
    done = sppe(PIPELINE)

    assert done.returncode == 1
    assert "exit code 0, but product folder/signals/xaa was not created" in done.stderr
