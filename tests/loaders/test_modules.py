"""A loaded file is a module, whose tasks are found by variable and by name."""

from __future__ import annotations

import importlib
import sys

import pytest

from airflow_provider_sewer import SewerError, get_task_from_module, get_tasks_from_module, load_module
from airflow_provider_sewer.core.errors import WorkflowFileError

FILE = """
    first = Task("Example 1", "m")
    same = first
    rest = [Task("Example 2", "m"), Task("Example 3", "m")]
    number = 5

    @workflow
    def w():
        first.run()
"""


def test_load_module_returns_definitions_of_file(write):
    """Variables and functions, as if it had been imported; nothing has run."""
    path = write(FILE)

    module = load_module(path)

    assert (module.number, module.__file__) == (5, str(path))
    assert module.w.__name__ == "w"


def test_load_module_accepts_file_without_tasks(write):
    """Only a workflow needs tasks."""
    assert get_tasks_from_module(load_module(write(""))) == {}


def test_get_tasks_from_module_returns_tasks_by_variable(write):
    """Each variable that holds a task, under its own name."""
    module = load_module(write(FILE))

    assert get_tasks_from_module(module) == {"first": module.first, "same": module.first}


def test_get_task_from_module_finds_task_by_name(write):
    """In a variable or in a list."""
    module = load_module(write(FILE))

    assert get_task_from_module(module, "Example 1") is module.first
    assert get_task_from_module(module, "Example 3") is module.rest[1]


def test_get_task_from_module_rejects_unknown_name(write):
    """And with the one that was probably meant."""
    path = write(FILE)

    with pytest.raises(WorkflowFileError) as caught:
        get_task_from_module(load_module(path), "Exampel 1")

    assert str(caught.value) == (
        f"{path}: unknown task 'Exampel 1'; did you mean 'Example 1'? Known: 'Example 1', 'Example 2', 'Example 3'."
    )


def test_get_task_from_module_rejects_duplicate_name(write):
    """There is no guessing which one is meant."""
    path = write("Task('a', 'm')\nTask('a', 'n')")

    with pytest.raises(WorkflowFileError) as caught:
        get_task_from_module(load_module(path), "a")

    assert str(caught.value) == f"{path}: several tasks are named 'a': at {path}:2 and {path}:3"


def test_get_task_from_module_accepts_imported_module(write, monkeypatch, tmp_path):
    """A workflow file in an installed package can be imported like anything else."""
    write("a = Task('a name', 'm')", "imported_flow.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("imported_flow")
    monkeypatch.delitem(sys.modules, "imported_flow")

    assert get_tasks_from_module(module) == {"a": module.a}
    assert get_task_from_module(module, "a name") is module.a


def test_load_module_raises_same_error_as_load_workflow(write):
    """With file and line."""
    path = write("1 / 0")

    with pytest.raises(SewerError, match=r"flow\.py:2: ZeroDivisionError"):
        load_module(path)
