"""What a DAG file gives to sewer_task_group: anything that it cannot be is named before the workflow file is read."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, task

from airflow_provider_sewer import SewerError, Task
from airflow_provider_sewer.task_group import create_airflow_task, sewer_task_group


@task
def give():
    return "later"


LATER = object()
#: By argument: what is needed, and what is given instead.
WRONG = {
    "workflow_file": ("a path", [None, 5, b"flow.py", "", LATER]),
    "group_id": ("a text", [5, ["g"], LATER]),
    "prefix_group_id": ("True or False", ["no", 0, None, LATER]),
    "workflow": ("the name of a workflow", [[], 5, LATER]),
    "arguments": ("a mapping from names of parameters to values", [["n"], "n", {1: 2}, LATER]),
    "jobs": ("the name of a module", [5, LATER]),
    "sewer_conn_id": ("a text", [5, LATER]),
    "operator_kwargs": ("a mapping from names of operator arguments to values", [["x"], "x", {1: 2}, LATER]),
    "overrides": (
        "a mapping from names of tasks to operator arguments",
        [["a"], "a", {None: {"retries": 1}}, {5: {}}, {("a", "b"): {}}, LATER],
    ),
    "task_converter": ("a function", ["a name", LATER]),
    "default_args": ("a mapping from names of operator arguments to values", [5, ["retries"], {1: 2}, LATER]),
    "read_with_interpreter": ("True or False", ["yes", 1, None, LATER]),
}
CASES = [(name, value, needed) for name, (needed, values) in WRONG.items() for value in values]


def given(name: str, value: object) -> dict:
    """Return the arguments of a group, one of which is wrong."""
    value = give() if value is LATER else value
    return {"workflow_file": "there is none.py", name: value}


@pytest.mark.parametrize(("name", "value", "needed"), CASES)
def test_an_argument_that_cannot_be_is_named_with_its_value(name, value, needed):
    """In one sentence, of partial as well, and before anything else is done."""
    with DAG("wrong", schedule=None):
        arguments = given(name, value)
        for make in (sewer_task_group, sewer_task_group.partial):
            with pytest.raises(SewerError) as caught:
                make(**arguments)
            assert str(caught.value) == f"{name}: {needed} is needed, not {arguments[name]!r}"


def test_the_arguments_of_one_task_of_an_override_have_names(expand):
    """As those of operators."""
    with pytest.raises(SewerError, match=r"^overrides 't': a mapping of operator arguments is needed, not \{5: 1\}"):
        expand("t = Task('t', 'job')", overrides={"t": {5: 1}})


@pytest.mark.parametrize("name", ["sewer_conn_id", "operator_kwargs"])
def test_so_is_one_that_is_given_to_a_single_task(name):
    """Where it has the same meaning."""
    needed, values = WRONG[name]
    for value in values[:-1]:
        with pytest.raises(SewerError) as caught:
            create_airflow_task(Task("t", "job"), **{name: value})
        assert str(caught.value) == f"{name}: {needed} is needed, not {value!r}"
