"""Type checks of task group arguments, which run before the workflow file is loaded."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, task

from airflow_provider_sewer import SewerError, Task
from airflow_provider_sewer.task_group import create_airflow_task, sewer_task_group


@task
def give():
    return "later"


XCOM_ARG = object()
#: Required type and invalid values by argument.
WRONG = {
    "workflow_file": ("a path", [None, 5, b"flow.py", "", XCOM_ARG]),
    "group_id": ("a string", [5, ["g"], XCOM_ARG]),
    "prefix_group_id": ("a bool", ["no", 0, None, XCOM_ARG]),
    "workflow": ("the name of a workflow", [[], 5, XCOM_ARG]),
    "arguments": ("a mapping of parameter names to values", [["n"], "n", {1: 2}, XCOM_ARG]),
    "jobs": ("the name of a module", [5, XCOM_ARG]),
    "sewer_conn_id": ("a string", [5, XCOM_ARG]),
    "operator_kwargs": ("a mapping of operator argument names to values", [["x"], "x", {1: 2}, XCOM_ARG]),
    "overrides": (
        "a mapping of task names to operator arguments",
        [["a"], "a", {None: {"retries": 1}}, {5: {}}, {("a", "b"): {}}, XCOM_ARG],
    ),
    "task_converter": ("a function", ["a name", XCOM_ARG]),
    "default_args": ("a mapping of operator argument names to values", [5, ["retries"], {1: 2}, XCOM_ARG]),
    "read_with_interpreter": ("a bool", ["yes", 1, None, XCOM_ARG]),
}
CASES = [(name, value, expected) for name, (expected, values) in WRONG.items() for value in values]


def given(name: str, value: object) -> dict:
    """Return group arguments with one invalid value."""
    value = give() if value is XCOM_ARG else value
    return {"workflow_file": "missing.py", name: value}


@pytest.mark.parametrize(("name", "value", "expected"), CASES)
def test_check_arguments_wrong_type_raises_with_value(name, value, expected):
    """partial() checks them too; the workflow file is not loaded before."""
    with DAG("wrong", schedule=None):
        arguments = given(name, value)
        for make in (sewer_task_group, sewer_task_group.partial):
            with pytest.raises(SewerError) as caught:
                make(**arguments)
            assert str(caught.value) == f"{name} must be {expected}, got {arguments[name]!r}"


def test_overrides_without_string_keys_raises(expand):
    """Keys of an override are operator argument names."""
    with pytest.raises(SewerError, match=r"^overrides 't': the value must be a mapping of .*, got \{5: 1\}"):
        expand("t = Task('t', 'job')", overrides={"t": {5: 1}})


@pytest.mark.parametrize("name", ["sewer_conn_id", "operator_kwargs"])
def test_create_airflow_task_rejects_wrong_argument_types(name):
    """Single tasks have the same checks."""
    expected, values = WRONG[name]
    for value in values[:-1]:
        with pytest.raises(SewerError) as caught:
            create_airflow_task(Task("t", "job"), **{name: value})
        assert str(caught.value) == f"{name} must be {expected}, got {value!r}"
