"""Operator arguments of tasks with equal settings: made once, and never shared where they can be changed."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import pytest

from airflow_provider_sewer.core.cli_args import to_arguments
from airflow_provider_sewer.operators.module import PythonModuleOperator

LOOP = """
for number in range({count}):
    Task(f"task_{{number}}", "job", {{"n": number, "deep": {{"er": [number]}}}}{fields})
"""


@contextmanager
def counted(function):
    """Yield a list that has an element for each call of a function in the block."""
    calls = []

    def note(frame, event, _):
        if event == "call" and frame.f_code is function.__code__:
            calls.append(frame.f_lineno)

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize(
    ("function", "times"),
    [(to_arguments, 1), (PythonModuleOperator.__init__, 0)],
    ids=["arguments are converted", "the constructor of an operator runs"],
)
@pytest.mark.parametrize("fields", ["", ", workdir='/data', env={'A': 'b'}, operator_kwargs={'params': {'x': [1]}}"])
def test_sewer_task_group_repeats_no_work_for_further_tasks(expand, function, times, fields):
    """Each further task with equal settings costs one conversion of its arguments, and no constructed operator."""
    found = {}
    for count in (10, 30):
        with counted(function) as calls:
            expand(LOOP.format(count=count, fields=fields))
        found[count] = len(calls)
    assert found[30] - found[10] == 20 * times


@pytest.mark.parametrize(
    ("one", "other", "field"),
    [
        ("operator_kwargs={'params': {'x': 1}}", "operator_kwargs={'params': {'x': True}}", "params"),
        ("operator_kwargs={'retries': 1}", "operator_kwargs={'retries': 2}", "retries"),
        ("env={'A': 'b'}", "env={'A': 'c'}", "env"),
        ("workdir='/a'", "workdir='/b'", "workdir"),
        ("python='/a'", "", "python"),
        ("resources={'gpu': 1}", "resources={'gpu': 2}", "pool_slots"),
        ("run_on='slurm'", "", "operator_class"),
        ("run_on='slurm', slurm={'mem_gb': 1}", "run_on='slurm', slurm={'mem_gb': 1.0}", "slurm"),
        ("products='/a', run_when='missing'", "products='/b'", "run_when"),
    ],
)
def test_sewer_task_group_tasks_with_other_settings_have_their_own_arguments(expand, one, other, field):
    """Also values that are equal to Python, such as 1 and True, are distinguished."""
    group = expand(f"""
        Task("first", "job", {one})
        Task("second", "job", {one.replace("/a", "/c") if "products" in one else one})
        Task("third", "job", {other})
    """)
    first, second, third = (_shown(getattr(group[name], field)) for name in ("first", "second", "third"))
    assert first == second != third


def _shown(value) -> str:
    return repr(dict(value) if hasattr(value, "items") else value)


def test_sewer_task_group_default_doc_applies_to_all_tasks(expand):
    """A description in the default arguments replaces that of each task, also of the cloned ones."""
    group = expand(LOOP.format(count=2, fields=""), dag_args={"doc_md": "*All*"})
    assert [group[f"task_{number}"].doc_md for number in range(2)] == ["*All*", "*All*"]


def test_task_converter_may_change_nested_arguments(expand):
    """A converter that changes the arguments of one task changes those of no other task, nor the next expansion."""

    def convert(task, arguments):
        arguments["executor_config"]["names"].append(task.name)
        arguments["parameters_and_flags"]["deep"]["er"].append(task.name)
        return arguments

    source = LOOP.format(count=2, fields="")
    given = {"operator_kwargs": {"executor_config": {"names": []}}}
    for _ in range(2):
        group = expand(source, task_converter=convert, **given)
        for number in range(2):
            assert group[f"task_{number}"].executor_config == {"names": [f"task_{number}"]}
            assert group[f"task_{number}"].parameters_and_flags["deep"] == {"er": [number, f"task_{number}"]}


def test_constructed_operators_share_no_nested_arguments(expand):
    """Operators with a value of no known type are constructed one by one, each from a copy of the common arguments."""
    group = expand(
        """
        from decimal import Decimal
        for name in ("first", "second", "third"):
            Task(name, "job", {"n": Decimal(1)})
        """,
        operator_kwargs={"executor_config": {"deep": []}},
    )
    group["first"].executor_config["deep"].append("changed")
    assert [group[name].executor_config for name in ("second", "third")] == [{"deep": []}, {"deep": []}]
