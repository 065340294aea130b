"""Run-time values in a workflow file and in the arguments that a DAG passes to a workflow."""

from __future__ import annotations

import json
import sys

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer import SewerError, Task
from airflow_provider_sewer.task_group import create_airflow_task, sewer_task_group

from .runtime_value_cases import TRAIN, give


def test_arguments_xcomarg_is_passed_and_sets_dependency(file, where, run_dag):
    """A whole value keeps its type at any depth; in a string it is converted to text."""
    with DAG("given", schedule=None) as dag:
        rates = give.override(task_id="rates")([0.5])
        sewer_task_group(file(TRAIN), arguments={"n": give(3), "config": {"lr": rates}}, **where)
    assert dag.get_task("train.first").upstream_task_ids == {"give"}
    assert dag.get_task("train.second").upstream_task_ids == {"give", "rates", "train.first"}
    results = run_dag(dag).results
    assert results["train.first"]["argv"] == ["3", "--n", "3", "--nested", '{"n": 3}', "--verbose"]
    assert results["train.second"] == {"n": 3, "config": {"lr": [0.5]}, "text": "3-svc"}


def test_arguments_key_of_xcomarg_is_passed(file, where, run_dag):
    """By key and position, whole and in a text."""
    source = """
        @workflow
        def parts(config):
            kwargs = {"lr": config["lr"], "text": f"lr {config['lr'][0]}", "none": Ignored(config["lr"][1])}
            Task("t", function="functions:give", kwargs=kwargs).run()
    """
    with DAG("parts", schedule=None) as dag:
        sewer_task_group(file(source), arguments={"config": give({"lr": [0.5, None]})}, **where)
    assert run_dag(dag).results["parts.t"] == {"lr": [0.5, None], "text": "lr 0.5", "none": None}


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("config['rate']", "there is no <config['rate']>: the object has the keys 'lr', 'name'"),
        ("f\"{config['items']}\"", "there is no <config['items']>: the object has the keys 'lr', 'name'"),
        ("f\"{config['name'][0]}\"", "there is no <config['name'][0]>: it is 'svc', which has no parts"),
    ],
)
def test_arguments_missing_key_of_xcomarg_fails_task_with_available_keys(
    file, where, run_dag, capsys, parameter, message
):
    """A typing mistake is not guessed at, whole or in a text."""
    source = f"""
        @workflow
        def parts(config):
            Task("t", "job", {{"lr": {parameter}}}).run()
    """
    with DAG("parts", schedule=None) as dag:
        sewer_task_group(file(source), arguments={"config": give({"lr": 0.5, "name": "svc"})}, **where)
    assert run_dag(dag).states["parts.t"] == "failed"
    assert message in capsys.readouterr().out


def test_arguments_dag_param_keeps_its_type(file, where, run_dag):
    """In a template it is text; as an argument it keeps its type."""
    source = """
        @workflow
        def typed(n):
            Task("t", function="functions:give", kwargs={"n": n, "text": "{{ params.n }}"}).run()
    """
    with DAG("typed", schedule=None, params={"n": 3}) as dag:
        sewer_task_group(file(source), arguments={"n": dag.param("n")}, **where)
    assert run_dag(dag).results["typed.t"] == {"n": 3, "text": "3"}
    assert run_dag(dag, conf={"n": 4}).results["typed.t"] == {"n": 4, "text": "4"}


ALL_FIELDS = """
    @workflow
    def fields(module, function, python, folder, value):
        settings = {"python": python, "workdir": f"{folder}/work", "env": {"A": value, "PYTHONPATH": folder}}
        job = Task(
            "job", module, {"n": value, "in": External(f"{folder}/{value}.csv"), "out": Product(f"made/{value}.txt")},
            args=[value, f"{folder}/x"], dependencies=[f"{folder}/{value}.csv"], products=["made/also.txt"], **settings,
        )
        call = Task(
            "call", function=function, kwargs={"n": [value], "in": Dependency(f"made/{value}.txt")},
            run_on="slurm", slurm={"comment": value, "setup": [f"echo {value}"]},
            operator_kwargs={"run_dir": f"{folder}/runs", "cluster": "local", "poll_interval": 0.1}, **settings,
        )
        (job >> call).run()
"""


@pytest.mark.parametrize("how", ["template", "xcom"])
def test_arguments_runtime_value_works_in_every_task_field(file, run_dag, tmp_path, how):
    """Module, function, parameters, arguments, paths, interpreter, environment, directories, Slurm parameters."""
    (tmp_path / "work").mkdir()
    (tmp_path / "seven.csv").touch()
    values = {
        "module": "makes", "function": "functions:give", "python": sys.executable, "folder": str(tmp_path),
        "value": "seven",
    }  # fmt: skip
    with DAG("fields", schedule=None, params=values) as dag:
        xcoms = {name: give.override(task_id=name)(value) for name, value in values.items()}
        templates = {name: f"{{{{ params.{name} }}}}" for name in values}
        sewer_task_group(file(ALL_FIELDS), arguments=xcoms if how == "xcom" else templates)
    makes = "import sys\nopen('made/also.txt', 'w')\nopen(sys.argv[sys.argv.index('--out') + 1], 'w')\n"
    (tmp_path / "makes.py").write_text(makes + (tmp_path / "job.py").read_text())
    (tmp_path / "work" / "made").mkdir()

    result = run_dag(dag)
    assert set(result.states.values()) == {"success"}
    job = result.results["fields.job"]
    assert job["A"] == "seven"
    assert job["cwd"] == str(tmp_path / "work")
    assert job["argv"][:5] == ["seven", f"{tmp_path}/x", "--n", "seven", "--in"]
    assert result.results["fields.call"] == {"n": ["seven"], "in": "made/seven.txt"}
    assert {path.name for path in (tmp_path / "work" / "made").glob("*.txt")} == {"seven.txt", "also.txt"}
    (script,) = (tmp_path / "runs").glob("**/job.sh")
    assert "echo seven" in script.read_text()
    uses = {"fields.job": set(values) - {"function"}, "fields.call": set(values) - {"module"}}
    for task_id, names in uses.items():
        assert (dag.get_task(task_id).upstream_task_ids & set(values)) == (names if how == "xcom" else set())
    sensor = "fields.wait_for_value_csv" if how == "xcom" else "fields.wait_for_params_value_csv"
    assert dag.get_task(sensor).upstream_task_ids == ({"folder", "value"} if how == "xcom" else set())


def test_sewer_task_group_settings_accept_runtime_values(file, run_dag, tmp_path):
    """Interpreter, environment, directories and parameters of jobs, each from an XCom; overrides as well."""
    source = """
        here = Task("here", "job", run_on="local")
        there = Task("there", "job")
    """
    with DAG("later", schedule=None) as dag:
        folder = give.override(task_id="folder")(str(tmp_path))
        color = give.override(task_id="color")("red")
        sewer_task_group(
            file(source),
            group_id="g",
            python=give.override(task_id="python")(sys.executable),
            env={"A": color, "PYTHONPATH": folder},
            workdir=folder,
            run_on="slurm",
            run_dir=give.override(task_id="runs")(str(tmp_path / "runs")),
            slurm={"setup": [give.override(task_id="line")("echo set up")]},
            cluster="local",
            operator_kwargs={"poll_interval": 0.1},
            overrides={"here": {"env": {"A": give.override(task_id="other")("blue")}}},
        )
    results = run_dag(dag).results
    expected = {"argv": [], "A": "red", "cwd": str(tmp_path)}
    assert [results["g.here"], results["g.there"]] == [{**expected, "A": "blue"}, expected]
    assert dag.get_task("g.here").upstream_task_ids == {"folder", "other", "python"}
    assert dag.get_task("g.there").upstream_task_ids == {"folder", "color", "python", "runs", "line"}
    assert len(list((tmp_path / "runs").glob("later/*/g.there/1"))) == 1


def test_create_airflow_task_accepts_runtime_values(file, where, run_dag):
    """create_airflow_task accepts the same values as a group."""
    with DAG("single", schedule=None) as dag:
        env = {**where["env"], "A": give("blue")}
        file("")
        create_airflow_task(Task("t", "job"), env=env, path_to_python=where["python"], workdir=where["workdir"])()
    assert dag.get_task("t").upstream_task_ids == {"give"}
    assert run_dag(dag).results["t"]["A"] == "blue"


def test_read_with_interpreter_passes_arguments(file, where, run_dag, monkeypatch, tmp_path):
    """Those that are known, and those that are known later."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with DAG("elsewhere", schedule=None) as dag:
        arguments = {"n": give(3), "name": "forest"}
        sewer_task_group(file(TRAIN), arguments=arguments, read_with_interpreter=True, **where)
    assert run_dag(dag).results["train.second"] == {"n": 3, "config": None, "text": "3-forest"}


def test_arguments_serialized_dag_is_stable_across_parses(file, where):
    """Run-time values leave no memory addresses in the serialized DAG."""
    from airflow.serialization.serialized_objects import DagSerialization

    def parsed() -> str:
        with DAG("parsed", schedule=None) as dag:
            config = give({"lr": 0.5})
            path = file(TRAIN.replace("config}", "config['lr']}").replace('"config": config', '"config": config["lr"]'))
            sewer_task_group.partial(path, arguments={"config": config}, **where).expand(n=give([1, 2]))
        return json.dumps(DagSerialization.to_dict(dag), sort_keys=True, default=str)

    assert parsed() == parsed()


# -- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use", ["if n > 3: pass", "if n: pass", "n == 3", "n in [1, 2]", "[x for x in n]", "Task('t', 'job').map(i=n)"]
)
def test_runtime_value_in_condition_or_loop_raises(file, where, use):
    """A DAG is the same in all runs; the line that would have it otherwise is named."""
    path = file(f"""
        @workflow
        def decides(n):
            {use}
            Task("t", "job", {{"n": n}}).run()
    """)
    message = r"flow\.py:5: .*<n> is known only when a task runs, and cannot be used in"
    with DAG("decides", schedule=None), pytest.raises(SewerError, match=message):
        sewer_task_group(path, arguments={"n": give(3)}, **where)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Task(f't-{n}', 'job').run()", r"flow\.py:5: .*name must be the same in all runs; 'n' is known only"),
        (
            "Task('t', 'job', operator_kwargs={'pool': n}).run()",
            r"flow\.py:5: task 't': operator_kwargs: 'pool' must be known",
        ),
        ("Task('t', 'job', {'n': n + 1}).run()", r"flow\.py:5: <n> is known only when a task runs, and cannot be used"),
        ("Task('t', 'job', {'n': f'{n:.2f}'}).run()", r"flow\.py:5: <n> is known only when .* formatted with '.2f'"),
        (
            "Task('t', 'job', {'n': n.lr}).run()",
            r"flow\.py:5: <n> is known only when .* no attribute .lr.; .* \['lr'\]",
        ),
        ("Task('t', 'job', {**n}).run()", r"flow\.py:5: <n> is known only when a task runs, and cannot be used in"),
        ("Task('t', 'job', {'n': str(n).upper()}).run()", r"flow\.py:5: task 't': the text .{{ TASK\..* was changed"),
        ("Task(f'{n}'.upper(), 'job').run()", r"flow\.py:5: task .*: the text .{{ TASK\..* was changed"),
        (
            "Task('t', 'job', {'n': n[True]}).run()",
            r"flow\.py:5: <n>: select a part by a key or a position",
        ),
    ],
)
def test_runtime_value_where_parse_time_value_is_required_raises_with_line(file, where, line, message):
    """Names, arguments that Airflow needs at parse time, arithmetic."""
    path = file(f"@workflow\ndef w(n):\n    pass\n    {line}")
    with DAG("before", schedule=None), pytest.raises(SewerError, match=message):
        sewer_task_group(path, arguments={"n": give(3)}, **where)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arguments": {"m": 1}}, r"flow\.py:3: TypeError: train\(\) got an unexpected .*'m'. Signature: \(n, config="),
        ({}, r"flow\.py:3: TypeError: train\(\) missing .*'n'. Signature: \(n, config=None, name='svc'\); pass values"),
        ({"env": "whole"}, "^env must be a mapping with known names, got a run-time value"),
        ({"slurm": "whole", "arguments": {"n": 1}}, "^slurm must be a mapping with known names, got a run-time value"),
        (
            {"operator_kwargs": {"queue": "whole"}, "arguments": {"n": 1}},
            "operator_kwargs: 'queue' must be known",
        ),
    ],
)
def test_sewer_task_group_invalid_arguments_raise(file, arguments, message):
    """While the DAG is parsed."""
    with DAG("vain", schedule=None):
        whole = give({"a": "b"})
        given = {
            field: whole if value == "whole" else {"queue": whole} if "queue" in value else value
            for field, value in arguments.items()
        }
        with pytest.raises(SewerError, match=message):
            sewer_task_group(file(TRAIN), **given)
