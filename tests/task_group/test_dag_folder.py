"""Airflow imports every file of its DAG folder that may hold a DAG; that starts no task."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

import pytest

MODULE = "from pathlib import Path; Path(__file__).with_name('has_run').touch()\n"

DAG_FILE = """
from airflow.sdk import DAG
from airflow_provider_sewer.task_group import sewer_task_group

with DAG("dag", schedule=None):
    sewer_task_group("flow.py")
"""

#: Ways to run tasks at module level, their .run() in line 6; the file names a dag, as Airflow wants it.
WAYS = {
    "a task": """
        from airflow_provider_sewer import Task  # of a dag
        import sys
        import threading
        folder = __file__.rpartition("/")[0]
        task = Task("a", module="marks", env={"PYTHONPATH": folder}, python=sys.executable)
        task.run()
    """,
    "a chain, in a function": """
        from airflow_provider_sewer import Task  # of a dag
        import sys
        folder = __file__.rpartition("/")[0]
        def main(): (
            Task("a", module="marks", env={"PYTHONPATH": folder}) >> Task("b", module="marks")
        ).run(path_to_python=sys.executable)
        main()
    """,
    "a workflow": """
        from airflow_provider_sewer import Task, workflow  # of a dag
        import sys
        folder = __file__.rpartition("/")[0]
        @workflow
        def dag():
            Task("a", module="marks").run(env={"PYTHONPATH": folder}, path_to_python=sys.executable)
        dag()
    """,
}
SPPE = """
    from airflow_provider_sewer import Task  # of a dag
    from airflow_provider_sewer.cli import main
    import sys
    folder = __file__.rpartition("/")[0]
    task = Task("a", module="marks")
    main(["run", "-p", __file__, "-i", sys.executable, "--env", f"PYTHONPATH={folder}"])
"""


@pytest.fixture
def folder(tmp_path):
    """Return a DAG folder with a module that leaves a file when it runs."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "marks.py").write_text(MODULE)
    return tmp_path / "dags"


@pytest.fixture
def import_errors(folder, airflow_home):
    """Return a function that imports the folder as Airflow does, and returns the errors of each file."""
    from airflow.dag_processing.dagbag import DagBag

    return lambda: DagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="dags-folder").import_errors


@pytest.mark.parametrize("way", WAYS)
def test_dag_folder_import_of_self_running_file_raises(way, folder, import_errors):
    """The error names the line, and .airflowignore."""
    (folder / "flow.py").write_text(dedent(WAYS[way]).lstrip())

    error = import_errors()["flow.py"]

    assert f"{folder}/flow.py:6: .run() cannot start tasks while Airflow imports DAG files" in error
    assert ".airflowignore" in error
    assert not (folder / "has_run").exists()


def test_dag_folder_import_of_file_calling_sppe_raises(folder, import_errors):
    """The file neither runs nor loads itself."""
    (folder / "flow.py").write_text(dedent(SPPE).lstrip())

    error = import_errors()["flow.py"]

    assert f"{folder}/flow.py:6: sppe cannot start tasks while Airflow imports DAG files" in error
    assert not (folder / "has_run").exists()


def test_sewer_task_group_of_file_calling_sppe_raises(folder, import_errors):
    """.airflowignore does not help here: the group loads the file."""
    (folder / "flow.py").write_text(dedent(SPPE).lstrip())
    (folder / "dag.py").write_text(DAG_FILE)
    (folder / ".airflowignore").write_text("flow.py\n")

    error = import_errors()["dag.py"]

    assert f"{folder}/flow.py:6: sppe cannot start tasks while a workflow file is loaded" in error
    assert not (folder / "has_run").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_dag_folder_import_of_file_running_thread_starts_no_task(folder, import_errors):
    """The thread has a stack of its own, which does not lead to Airflow."""
    source = dedent(WAYS["a task"]).replace("task.run()", "thread = threading.Thread(target=task.run)")
    (folder / "flow.py").write_text(f"{source}thread.start()\nthread.join()\n")

    import_errors()

    assert not (folder / "has_run").exists()


def test_sewer_task_group_expands_self_running_file(folder, import_errors):
    """The files read by a group are recorded, as for .airflowignore."""
    (folder / "flow.py").write_text(dedent(WAYS["a task"]).lstrip())
    (folder / "dag.py").write_text(DAG_FILE)
    (folder / ".airflowignore").write_text("flow.py\n")

    assert import_errors() == {}
    assert not (folder / "has_run").exists()


def test_dag_processor_starts_no_task(folder, airflow_home):
    """The real one, which imports each file in a process of its own, and keeps the error for the UI."""
    from airflow.models.errors import ParseImportError
    from airflow.utils.session import create_session

    (folder / "flow.py").write_text(dedent(WAYS["a task"]).lstrip())
    env = {**os.environ, "AIRFLOW__CORE__DAGS_FOLDER": str(folder), "AIRFLOW_HOME": str(airflow_home)}

    subprocess.run([sys.executable, "-m", "airflow", "dag-processor", "--num-runs", "1"], env=env, check=True)

    with create_session() as session:
        (error,) = session.query(ParseImportError.stacktrace).filter_by(filename="flow.py").one()
    assert ".airflowignore" in error
    assert not (folder / "has_run").exists()
