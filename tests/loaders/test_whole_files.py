"""The tasks of a workflow: a task that is left out by mistake raises an error."""

from __future__ import annotations

import pytest

from airflow_provider_sewer import SewerError, load_workflow
from airflow_provider_sewer.loaders.python_file import load_tasks


def test_run_in_helper_is_not_workflow_of_file(write):
    """A run in an imported helper does not replace the file's own tasks."""
    write("h = Task('h', 'steps')\nh.run()", "helper.py")
    path = write("import helper\na = Task('a', 'steps')\nb = Task('b', 'steps')\na >> b")

    workflow = load_workflow(path)

    assert list(workflow.tasks) == ["a", "b"]
    assert workflow.edges == [("a", "b")]


def test_top_level_run_must_include_all_tasks(write):
    """Otherwise the file would have another meaning for Python than for readers."""
    path = write("a, b, c = (Task(name, 'steps') for name in 'abc')\n(a >> b).run()")

    with pytest.raises(SewerError, match=r"flow\.py:2: task 'c' is not part of the run at .*flow\.py:3"):
        load_workflow(path)


def test_edge_on_separate_line_is_recorded(write):
    """In a workflow, as in a DAG, `b >> c` means that c runs after b, wherever it stands."""
    path = write("""
        a, b, c = (Task(name, "steps") for name in "abc")

        @workflow
        def w():
            b >> c
            (a >> [b, c]).run()
    """)

    assert set(load_workflow(path).edges) == {("a", "b"), ("a", "c"), ("b", "c")}


def test_edge_to_task_without_run_is_error(write):
    """A task that is tied but never run would be missed only when its products are."""
    path = write("""
        a, b, d = (Task(name, "steps") for name in "abd")

        @workflow
        def w():
            a >> d
            (a >> b).run()
    """)

    with pytest.raises(SewerError, match=r"flow\.py:4: 'a' >> 'd' is defined, but 'd' is not part of the workflow"):
        load_workflow(path)


def test_load_tasks_returns_tasks_of_workflows_and_others(write):
    """A task that is run has the settings of its run; one that no workflow runs is there as well."""
    path = write("""
        a, b, debug = (Task(name, "steps") for name in ("a", "b", "debug"))

        @workflow
        def one():
            a.run(env={"X": "1"})

        @workflow
        def two():
            (a >> b).run()
    """)

    tasks = {task.name: task for task in load_tasks(path)}

    assert list(tasks) == ["a", "b", "debug"]
    assert tasks["a"].settings.env == {"X": "1"}
