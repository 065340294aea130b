"""``sppe init``: a first workflow that runs, and a DAG that Airflow loads."""

from __future__ import annotations

import os

import pytest


def test_init_writes_workflow_that_runs(sppe) -> None:
    written = sppe.run("init", "first")
    run = sppe.run("--", "run", "flow.py", cwd=sppe.folder / "first")

    assert written.returncode == 0, written.stderr
    assert "Next: cd first && sppe show flow.py && sppe run flow.py" in written.stdout
    assert run.returncode == 0, run.stderr
    assert "[report] The total is 45" in run.stdout


def test_init_changes_no_existing_file(sppe) -> None:
    sppe.write("steps.py", "mine")

    done = sppe.run("init")

    assert done.returncode == 2
    assert "steps.py exists; name another folder" in done.stderr
    assert [path.name for path in sppe.folder.iterdir()] == ["steps.py"]
    assert (sppe.folder / "steps.py").read_text() == "mine"


@pytest.mark.airflow
def test_init_writes_dag_that_airflow_loads(sppe, airflow_home) -> None:
    """Airflow imports the DAG file and no other."""
    sppe.run("init")
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(sppe.folder), bundle_path=sppe.folder, bundle_name="dags-folder")

    assert bag.import_errors == {}
    assert list(bag.dags) == ["first"]
    assert [os.path.basename(stat.file) for stat in bag.dagbag_stats] == ["dag.py"]
    assert len(bag.dags["first"].tasks) == 3
