"""@task.python_module, by the name it is registered under, in a real Airflow."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk import DAG, Asset, task
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_sewer import Dependency, Product, SewerError


@task
def seed(value=42):
    return value


def test_python_module_passes_returned_parameters(echo, run_dag, shown):
    """Its arguments are XComs and values, context variables go by their names; the values are data."""

    @task.python_module(**echo)
    def train(n, rate=0.1, *, dag_run, **context):
        """Train a model."""
        assert context["ti"].task_id == "train"
        return {"n": n, "rate": rate, "run": "{{ run_id[:6] }}", "of": dag_run.run_id[:6], "verbose": True}

    with DAG("returned", schedule=None) as dag:
        train(seed(), rate="{{ 0.2 }}")
    assert dag.get_task("train").upstream_task_ids == {"seed"}
    assert dag.get_task("train").doc_md == "Train a model."
    assert run_dag(dag).results["train"] == {"argv": "--n 42 --rate 0.2 --run {{ run_id[:6] }} --of manual --verbose"}
    assert shown("returned", "train", "parameters_and_flags")["of"] == "manual"
    assert shown("returned", "train", "op_args") == [42]


def test_python_module_with_function_passes_returned_kwargs(module, run_dag):
    """They keep their types, as in a task."""
    where = module("def give(**kwargs): return kwargs", "functions")
    del where["module"]

    @task.python_module(function="functions:give", **where)
    def call(op_kwargs):
        return {"n": 1, "list": [op_kwargs, None], "day": "{{ dag.dag_id }}\n"}

    with DAG("called", schedule=None) as dag:
        call({"a": [1]})
    assert run_dag(dag).results["call"] == {"n": 1, "list": [{"a": [1]}, None], "day": "{{ dag.dag_id }}\n"}


def test_python_module_supports_expand_override_and_xcomargs(echo, run_dag):
    """Override, partial, expand over a list and over an XCom; its result is the module's."""

    @task.python_module(**echo)
    def train(n, rate):
        return {"n": n, "rate": rate}

    @task
    def pulled(result):
        return result["argv"]

    with DAG("composed", schedule=None) as dag:
        one = train.override(task_id="one", retries=3)(1, 0.5)
        pulled(one)
        train.partial(rate=0.5).expand(n=[1, 2])
        train.override(task_id="late").partial(n=3).expand(rate=seed([0.1, 0.2]))
    assert dag.get_task("one").retries == 3
    results = run_dag(dag).results
    assert results["pulled"] == "--n 1 --rate 0.5"
    assert [results[f"train[{i}]"]["argv"] for i in (0, 1)] == ["--n 1 --rate 0.5", "--n 2 --rate 0.5"]
    assert [results[f"late[{i}]"]["argv"] for i in (0, 1)] == ["--n 3 --rate 0.1", "--n 3 --rate 0.2"]


def test_multiple_outputs_splits_the_result_into_xcoms(echo, run_dag):
    """The function's return annotation describes the arguments, not the module's result."""

    @task.python_module(multiple_outputs=True, **echo)
    def several():
        return {}

    @task.python_module(**{**echo, "module": "platform"})
    def one() -> dict[str, str]:
        return {}

    @task
    def pulled(value):
        return value

    with DAG("outputs", schedule=None) as dag:
        pulled(several()["argv"])
        one()
    result = run_dag(dag)
    assert result.state == "success"
    assert result.results["pulled"] == ""


def test_returned_products_are_atomic_and_not_outlets(made, run_dag, tmp_path):
    """Only outlets of the decorator count; a path may be a template; dependencies are checked before the run."""

    @task.python_module(outlets=[Asset("given")], workdir=str(tmp_path), run_when="missing", **made)
    def make(name, out):
        return {"out": out, "in": Dependency(f"{name}.csv")}

    with DAG("products", schedule=None) as dag:
        make("a", Product("made/{{ dag.dag_id }}.txt"))
        make.override(task_id="lacks")("b", Product("made/b.txt"))
    assert [asset.name for asset in dag.get_task("make").outlets] == ["given"]
    (tmp_path / "a.csv").touch()
    result = run_dag(dag)
    assert result.states == {"make": "success", "lacks": "failed"}
    assert (tmp_path / "made" / "products.txt").read_text() == "made"
    assert not (tmp_path / "made" / "b.txt").exists()
    assert result.results == {"make": "ran"}

    made_first = (tmp_path / "made" / "products.txt").stat().st_mtime_ns
    assert run_dag(dag).results == {"make": "ran"}
    assert (tmp_path / "made" / "products.txt").stat().st_mtime_ns == made_first


def test_mapped_instances_do_not_share_returned_products(made, run_dag, tmp_path):
    """A marker in one does not turn a text of another into a product."""

    @task.python_module(workdir=str(tmp_path), **made)
    def make(n):
        return {"out": Product("whole.txt") if n == 0 else "plain.txt"}

    with DAG("instances", schedule=None) as dag:
        make.expand(n=[0, 1])
    assert run_dag(dag).state == "success"
    assert (tmp_path / ".sewer" / "whole.txt.json").exists()
    assert not (tmp_path / ".sewer" / "plain.txt.json").exists()


def test_python_callable_can_skip_the_task(echo, run_dag):
    """As can an exit code of the module."""

    @task.python_module(**echo)
    def skips():
        raise AirflowSkipException("nothing to do")

    with DAG("skips", schedule=None) as dag:
        skips()
        task.python_module(skip_on_exit_code=2, **{**echo, "module": "timeit"})(lambda: {"no-such-option": 1}).override(
            task_id="exits"
        )()
    assert run_dag(dag).states == {"skips": "skipped", "exits": "skipped"}


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, "as a dict, got None"),
        (["--n", "1"], "as a dict, got a list"),
        ({"no such name": 1}, "parameter 'no such name': write the bare name"),
        ({"n": {1, 2}}, "parameter 'n': a value of type set has no plain text form"),
    ],
)
def test_invalid_return_value_fails_without_retry(echo, run_dag, capsys, returned, expected):
    """Another try would not help."""
    calls = []

    @task.python_module(retries=2, retry_delay=timedelta(0), **echo)
    def returns_wrong():
        calls.append(1)
        return returned

    with DAG("wrong", schedule=None) as dag:
        returns_wrong()
    assert run_dag(dag).states == {"returns_wrong": "failed"}
    assert expected in capsys.readouterr().out
    assert calls == [1]


def test_error_in_python_callable_fails_the_task(echo, run_dag, capsys):
    """It is tried again, as any task is."""
    calls = []

    @task.python_module(retries=1, retry_delay=timedelta(0), **echo)
    def fails():
        calls.append(1)
        raise LookupError("no such seed")

    with DAG("fails", schedule=None) as dag:
        fails()
    assert run_dag(dag).states == {"fails": "failed"}
    assert "no such seed" in capsys.readouterr().out
    assert calls == [1, 1]


def test_returned_value_that_is_not_json_fails_and_is_named(module, run_dag, capsys):
    """Airflow, which shows the returned value, could not serialize it either."""
    where = module("def give(**kwargs): return kwargs", "functions")
    del where["module"]

    @task.python_module(function="functions:give", **where)
    def call():
        return {"n": 1, "rate": float("inf")}

    with DAG("infinite", schedule=None) as dag:
        call()
    assert run_dag(dag).states == {"call": "failed"}
    output = capsys.readouterr().out
    assert "task 'call': kwargs 'rate': arguments are passed as JSON" in output
    assert "Failed to set rendered fields" not in output


def empty():
    return {}


async def is_async():
    return {}


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (empty, {}, "task 'empty': a task must have either a module or a function, got neither"),
        (
            empty,
            {"module": "no module"},
            "task 'empty': module must be a dotted name",
        ),
        (empty, {"module": "m", "run_when": "often"}, "run_when"),
        (
            empty,
            {"module": "m", "parameters_and_flags": {}},
            "parameters_and_flags is not an argument of the decorator",
        ),
        (empty, {"module": "m", "op_kwargs": {"n": 1}}, "op_kwargs is not an argument of the decorator"),
        (empty, {"module": "m", "op_args": [1]}, "op_args is not an argument of the decorator"),
        (is_async, {"module": "m"}, r"test_module\.py:\d+: is_async\(\) must not be async"),
    ],
)
def test_invalid_arguments_raise_at_parse_time(function, arguments, expected):
    """As with the operator; the line is that of the function."""
    with DAG("parsed", schedule=None), pytest.raises(SewerError, match=expected):
        task.python_module(**arguments)(function)()
