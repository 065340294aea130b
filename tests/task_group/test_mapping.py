"""Mapped tasks in Airflow: their values and paths."""

from __future__ import annotations

import os

import pytest

from airflow_provider_sewer import SewerError

STEPS = """
from pathlib import Path

def square(n):
    return n * n

def give(**values):
    return values["value"] if list(values) == ["value"] else values

def make(out, n, **_):
    Path(out).write_text(str(n))
    return n
"""


@pytest.fixture
def group(expand, tmp_path):
    """Expand a workflow file's source that has functions to call: ``square``, ``give`` and ``make``."""
    (tmp_path / "steps.py").write_text(STEPS)
    begin = "square, give, make = 'steps:square', 'steps:give', 'steps:make'\n"
    return lambda source, **arguments: expand(begin + source, **arguments)


def test_task_map_over_results_of_mapped_task(group, run_dag):
    """Each instance takes the result of one; so does a parameter that is the same in all of them."""
    source = """
a = Task("a", function=square, kwargs={"n": 0}).map(n=[2, 3])
b = Task("b", function=give, kwargs={"n": 0, "first": a[0].result}).map(n=a.result)
c = Task("c", function=give, kwargs={"value": [b.result, b[1].result["n"]]})
"""
    results = run_dag(group(source).dag).results
    assert results["g.c"] == [[{"n": 4, "first": 4}, {"n": 9, "first": 4}], 9]


@pytest.mark.parametrize("values", [[2, 3], [3]], ids=str)
def test_task_map_over_results_of_task_mapped_over_result(group, run_dag, values):
    """However many there are: one is a list of one."""
    source = f"""
rows = Task("rows", function=give, kwargs={{"value": {values}}})
a = Task("a", function=square, kwargs={{"n": 0}}).map(n=rows.result)
b = Task("b", function=square, kwargs={{"n": 0}}).map(n=a.result)
c = Task("c", function=give, kwargs={{"value": b.result}})
"""
    assert run_dag(group(source).dag).results["g.c"] == [value**4 for value in values]


def test_task_map_equal_values_are_one_instance(group, run_dag):
    """Results are as many as there are values."""
    source = """
a = Task("a", function=make, kwargs={"n": 0, "out": Product("{n}.txt")}).map(n=[10, 10, 20])
b = Task("b", function=give, kwargs={"value": a.result})
"""
    result = run_dag(group(source).dag)
    assert sorted(task for task in result.states if task.startswith("g.a")) == ["g.a[0]", "g.a[1]"]
    assert result.results["g.b"] == [10, 10, 20]


def test_task_map_value_with_paths_is_one_instance(group, run_dag, tmp_path):
    """Each instance waits for its own external path, and the temporary products of all are removed."""
    source = """
rows = Task("rows", function=give, kwargs={"value": [1, 2]})
up = Task(
    "up", function=make, kwargs={"n": 0, "out": Product("d/d-{n}.txt", temporary=True), "from": External("in-{n}.csv")}
).map(n=rows.result)
one = Task("one", function=give, kwargs={"value": Dependency("d/d-1.txt")})
whole = Task("whole", function=give, kwargs={"value": Dependency("d")})
"""
    for n in (1, 2):
        (tmp_path / f"in-{n}.csv").touch()
    dag = group(source, deferrable=True).dag
    assert dag.get_task("g.one").upstream_task_ids == dag.get_task("g.whole").upstream_task_ids == {"g.up"}
    (remover,) = (task for task in dag.tasks if "remove" in task.task_id)
    assert remover.upstream_task_ids == {"g.rows", "g.one", "g.whole"}

    result = run_dag(dag)
    assert set(result.states.values()) == {"success"}
    assert len([task for task in result.states if "wait" in task]) == 2
    assert os.listdir(tmp_path / "d") == [".sewer"]


MAPPED = 'Task("up", function=square, kwargs={"n": 0}, operator_kwargs=OWN).map(n=[1, 2])\n'
SHOWN = {"map_index_template": "{{ task.op_kwargs['n'] }} squared", "doc_md": "Squares."}


@pytest.mark.parametrize(
    ("own", "arguments"),
    [
        (SHOWN, {}),
        ({}, {"operator_kwargs": SHOWN}),
        ({}, {"overrides": {"up": SHOWN}}),
        ({}, {"overrides": {"*": SHOWN}}),
        ({}, {"default_args": SHOWN}),
        ({}, {"dag_args": SHOWN}),
    ],
    ids=["operator_kwargs", "group", "overrides", "glob", "default_args", "dag"],
)
@pytest.mark.parametrize("over", ["[1, 2]", "give.result"])
def test_sewer_task_group_keeps_map_index_template_of_user(group, own, arguments, over):
    """In every place of the DAG file or the workflow file."""
    source = f"give = Task('give', function=give, kwargs={{'value': [1]}})\nOWN = {own!r}\n{MAPPED}"
    mapped = group(source.replace("[1, 2]", over), **arguments)["up"]
    assert {name: mapped.partial_kwargs[name] for name in SHOWN} == SHOWN


def test_sewer_task_group_map_index_template_shows_items(group, run_dag):
    """By default."""
    mapped = group(f"OWN = {{}}\n{MAPPED}")["up"]
    assert mapped.partial_kwargs["map_index_template"] == "n={{ task.op_kwargs['n'] }}"
    assert "steps:square" in mapped.partial_kwargs["doc_md"]


@pytest.mark.parametrize("arguments", [{"default_args": {"doc_md": "Squares."}}, {"dag_args": {"doc_md": "Squares."}}])
def test_sewer_task_group_keeps_a_doc_md_of_default_args(group, arguments):
    """For single tasks too."""
    tasks = group("for n in 'ab': Task(n, function=square, kwargs={'n': 1})", **arguments)
    assert [task.doc_md for task in tasks] == ["Squares."] * 2


@pytest.mark.parametrize("name", ["run_when", "module", "task_display_name"])
def test_sewer_task_group_task_field_in_default_args_raises(group, name):
    """It would not hold."""
    with pytest.raises(SewerError, match=f"^default_args must not contain '{name}'; use the field of the task"):
        group("Task('a', function=square, kwargs={'n': 1})", default_args={name: "missing"})


@pytest.mark.parametrize("path", ["same.txt", "{{ ds }}/same.txt", "{{n}}.txt"])
def test_task_map_same_product_path_for_all_instances_raises(group, path):
    """While the DAG is parsed, as with values that are known then."""
    source = f"""
rows = Task("rows", function=give, kwargs={{"value": [1, 2]}})
Task("up", function=make, kwargs={{"n": 0, "out": Product("{path}")}}).map(n=rows.result)
"""
    with pytest.raises(SewerError, match=r"flow\.py:5: task 'up': map: all of its tasks would create '.*'; .*{n}/"):
        group(source)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": 1}, "task 'up' must be mapped over a list, got the result an object"),
        ("abc", "task 'up' must be mapped over a list, got the result 'abc'"),
        ([1, "1"], "task 'up': map: 'up' and 'up' would both create '1.txt'"),
        ([[1]], "task 'up': map: Product('{n}.txt'): n must have a text for a path, got [1]"),
    ],
    ids=str,
)
def test_task_map_over_invalid_result_fails_upstream_task(group, run_dag, capsys, value, message):
    """Before there are instances, each of which would fail."""
    source = f"""
rows = Task("rows", function=give, kwargs={{"value": {value!r}}})
Task("up", function=make, kwargs={{"n": 0, "out": Product("{{n}}.txt")}}).map(n=rows.result)
"""
    assert run_dag(group(source).dag).states["g.rows"] == "failed"
    assert message in capsys.readouterr().out


def test_task_map_over_result_of_one_instance_raises(group):
    """It maps over the results of all instances."""
    source = """
a = Task("a", function=give, kwargs={"value": 0}).map(value=[[1], [2]])
b = Task("b", function=square, kwargs={"n": 0}).map(n=a[0].result)
"""
    with pytest.raises(SewerError, match=r"flow\.py:5: task 'b': map: .* over the results of all instances of 'a'"):
        group(source)
