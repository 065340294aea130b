"""The README of Sewerpipe: its users' files, word for word, and their ways to use them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import airflow_provider_sewer
from airflow_provider_sewer import get_task_from_module, get_tasks_from_module, load_module, load_workflow

PACKAGE_FOLDER = Path(airflow_provider_sewer.__file__).parent.parent

#: The first example of the document, as it stands there.
EXAMPLE = """\
from sewer.config import Task
from sewer.workflows import workflow

t1 = Task(
    name="Example 1",
    module="sewer.dummy",
    parameters_and_flags=dict(
        verbose=True,
        name="My momma"
    )
)

t2 = Task(
    name="Example 2",
    module="sewer.dummy",
    parameters_and_flags=dict(
        verbose=False,
        name="My momma not"
    )
)


@workflow
def workflow():
    (t1 >> t2).run()


def main():
    workflow()


if __name__ == "__main__":
    main()
"""

#: A stand-in for the module that the example runs, which no package index has: it records its arguments.
DUMMY = """\
import argparse, os

parser = argparse.ArgumentParser()
parser.add_argument("--name")
parser.add_argument("--verbose", action="store_true")
options = parser.parse_args()
with open(os.environ["RECORDS"], "a") as records:
    print(options.name, options.verbose, file=records)
"""


@pytest.fixture
def example(tmp_path):
    """Write the document's example where the document has it."""
    file = tmp_path / "workflows" / "example.py"
    file.parent.mkdir()
    file.write_text(EXAMPLE)
    return file


@pytest.fixture
def env(tmp_path):
    """Put a stand-in for ``sewer.dummy`` where an interpreter finds it, and return the variables for it."""
    package = tmp_path / "installed" / "sewer"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "dummy.py").write_text(DUMMY)
    return {"PYTHONPATH": str(package.parent), "RECORDS": str(tmp_path / "records")}


@pytest.fixture
def records(tmp_path):
    """Return a function that reads the records of the stand-in."""
    return lambda: (tmp_path / "records").read_text().splitlines()


def test_documented_file_loads_unchanged(example):
    """Two tasks in a chain, whose command lines are those of Sewerpipe."""
    graph = load_workflow(example)

    assert graph.name == "workflow"
    assert graph.edges == [("Example 1", "Example 2")]
    assert [(task.module, task.arguments()) for task in graph.tasks.values()] == [
        ("sewer.dummy", ["--name", "My momma", "--verbose"]),
        ("sewer.dummy", ["--name", "My momma not"]),
    ]


def test_documented_file_runs_unchanged(example, env, records, run_sewer_file):
    """As ``sppe run -p workflows/example.py`` runs it, one task after the other.

    Only the module is a stand-in: ``sewer.dummy`` is part of no package that could be installed.
    """
    outcomes = run_sewer_file(example, python=sys.executable, env=env)

    assert [outcome.state.value for outcome in outcomes.values()] == ["succeeded", "succeeded"]
    assert records() == ["My momma True", "My momma not False"]


def test_workflow_of_loaded_module_runs_when_called(example, env, records, monkeypatch):
    """``load_module`` gives the file's own function, which is plain Python.

    Run as ``python workflows/example.py`` the file cannot be: outside of this package there is no
    ``sewer.config`` to import, unless Sewerpipe itself is installed.
    """
    for task in get_tasks_from_module(module := load_module(example)).values():
        task.settings = task.settings._replace(python=sys.executable, env=env)

    module.main()

    assert records() == ["My momma True", "My momma not False"]


def test_get_task_from_module_by_variable_and_name(example):
    """``load_module``, ``get_tasks_from_module`` and ``get_task_from_module``, as documented."""
    module = load_module(Path(example))

    assert list(get_tasks_from_module(module)) == ["t1", "t2"]
    assert get_task_from_module(module, "Example 2") is module.t2


def test_task_of_loaded_module_runs_alone(example, env, records):
    """With interpreter, environment and folder given to ``.run(…)``, by the names of the document."""
    task = get_task_from_module(load_module(example), "Example 1")

    task.run(path_to_python=Path(sys.executable), env=env, workdir=example.parent)

    assert records() == ["My momma True"]


@pytest.fixture
def project(tmp_path):
    """Write the document's project with workflows in an installed package.

    Its import lines are this package's: files that Python itself imports cannot use names that exist
    only while this package loads a file.
    """
    file = tmp_path / "project" / "somefolder" / "workflows" / "data_generation.py"
    file.parent.mkdir(parents=True)
    lines = EXAMPLE.splitlines(keepends=True)[2:]
    file.write_text("".join(["from airflow_provider_sewer import Task, workflow\n", *lines]))
    return tmp_path / "project"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            """
            from somefolder.workflows.data_generation import t1
            t1.run(path_to_python=Path(sys.executable), env=env)
            """,
            ["My momma True"],
        ),
        (
            """
            from somefolder.workflows.data_generation import t1, t2
            t2.run(path_to_python=sys.executable, workdir=os.getcwd(), env=env)
            t1.run(path_to_python=sys.executable, workdir=os.getcwd(), env=env)
            """,
            ["My momma not False", "My momma True"],
        ),
        (
            """
            from somefolder.workflows.data_generation import t1, t2, workflow
            for task in t1, t2:
                task.settings = task.settings._replace(python=sys.executable, env=env)
            workflow()
            """,
            ["My momma True", "My momma not False"],
        ),
    ],
    ids=["a task", "two tasks", "a workflow"],
)
def test_imported_tasks_run_with_other_interpreter(project, env, records, call, expected):
    """The body of ``@task.external_python`` in the document, which Airflow sends to another Python."""
    code = f"import os, sys\nfrom pathlib import Path\nenv = {env!r}\n{dedent(call)}"
    path = os.pathsep.join(map(str, [project, PACKAGE_FOLDER]))

    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60)

    assert records() == expected


def test_documented_dag_runs(example, env, records, run_dag):
    """``create_airflow_task`` returns factories, and ``>>`` works on their tasks.

    The document's DAG cannot run unchanged in Airflow 3: ``airflow.utils.dates`` and
    ``schedule_interval`` are gone, and ``sewerpipe.*`` exists only in workflow files.
    """
    from airflow.sdk import DAG, task

    from airflow_provider_sewer.task_group import create_airflow_task

    @task
    def clean_up():
        print("Cleaning up...")

    module = load_module(example)
    callargs = {"path_to_python": Path(sys.executable), "env": env, "workdir": example.parent}
    with DAG("data_prep", description="Data preparation pipeline", schedule=None) as dag:
        data_generation = create_airflow_task(get_task_from_module(module, "Example 1"), **callargs)
        data_noising = create_airflow_task(get_task_from_module(module, "Example 2"), **callargs)
        data_generation() >> data_noising() >> clean_up()

    result = run_dag(dag)

    assert result.states == {"Example_1": "success", "Example_2": "success", "clean_up": "success"}
    assert records() == ["My momma True", "My momma not False"]
