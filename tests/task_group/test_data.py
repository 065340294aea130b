"""Results, arguments and items reach the tasks of a group as they are; written text is the same as in ``sppe``."""

from __future__ import annotations

import os
import sys

import pytest
from airflow.sdk import DAG, literal, task

from airflow_provider_sewer import SewerError
from airflow_provider_sewer.task_group import sewer_task_group

from .runtime_value_cases import give

#: Texts of which Jinja would make something else, and that can be a part of a file's name.
NAMES = ["{{ var.value.secret }}", "{{ 1 + 1 }}", "{% if x %}", "{#1", "a\r\nb\n", "1.10", "None", "{n}"]
STEPS = f"""
from pathlib import Path

def names():
    return {NAMES!r}

def give(**values):
    return values

def make(n, out, **_):
    Path(out).write_bytes(n.encode())
    return out

def text_of(path):
    return Path(path).read_bytes().decode()
"""


@pytest.fixture(params=[False, True], ids=["text", "native"])
def dag(request):
    """Return a DAG that renders templates as text, or as native objects."""
    return DAG("data", schedule=None, render_template_as_native_obj=request.param)


@pytest.fixture
def group(dag, file, where, tmp_path):
    """Expand a workflow file's source that has functions to call; return the group."""
    (tmp_path / "steps.py").write_text(STEPS)
    begin = "names = Task('names', function='steps:names')\n"

    def make(source: str, **arguments):
        with dag:
            return sewer_task_group(file(begin + source), **{"group_id": "g", **where, **arguments})

    return make


def instances(result, task_id):
    return [result.results.get(f"{task_id}[{index}]") for index in range(len(NAMES))]


def test_sewer_task_group_passes_results_literally(group, run_dag):
    """Whole, a part, and those of all instances of a mapped task."""
    result = run_dag(
        group("""
several = Task("several", function="steps:give", kwargs={"n": ""}).map(n=names.result)
kwargs = {"all": names.result, "part": [{"x": names.result[5]}], "several": several.result}
Task("last", function="steps:give", kwargs=kwargs)
""").dag
    )
    expected = {"all": NAMES, "part": [{"x": "1.10"}], "several": [{"n": name} for name in NAMES]}
    assert result.results["g.last"] == expected


@pytest.mark.parametrize("run_on", ["local", "slurm"])
def test_task_map_passes_items_of_a_result_literally_and_renders_written_text(group, run_dag, tmp_path, run_on):
    """For a module and a function; other run-time values may be used beside the item."""
    source = """
kwargs = {"n": "", "dag": "{{ dag.dag_id }}", "all": names.result}
Task("call", function="steps:give", kwargs=kwargs).map(n=names.result)
Task("job", module="job", parameters_and_flags={"n": ""}, args=["{{ dag.dag_id }}"]).map(n=names.result)
"""
    jobs = {"run_dir": tmp_path / "runs", "cluster": "local", "operator_kwargs": {"poll_interval": 0.1}}
    result = run_dag(group(source, run_on=run_on, **(jobs if run_on == "slurm" else {})).dag)
    assert instances(result, "g.call") == [{"n": name, "dag": "data", "all": NAMES} for name in NAMES]
    assert [each["argv"] for each in instances(result, "g.job")] == [["data", "--n", name] for name in NAMES]


def test_task_map_passes_an_argument_of_the_workflow_besides_items(dag, file, where, run_dag, tmp_path):
    """The mapped task runs after the task that gives it."""
    (tmp_path / "steps.py").write_text(STEPS)
    source = """
    @workflow
    def flow(n):
        names = Task("names", function="steps:names")
        kwargs = {"n": "", "given": n, "text": f"<{n}>"}
        (names >> Task("call", function="steps:give", kwargs=kwargs).map(n=names.result)).run()
    """
    with dag:
        sewer_task_group(file(source), group_id="g", arguments={"n": give(literal(NAMES[0]))}, **where)
    assert dag.get_task("g.call").upstream_task_ids == {"give", "g.names"}
    expected = [{"n": name, "given": NAMES[0], "text": f"<{NAMES[0]}>"} for name in NAMES]
    assert instances(run_dag(dag), "g.call") == expected


def test_paths_of_a_mapped_task_hold_items_literally(group, run_dag, tmp_path):
    """A product is produced, waited for and removed at the path with the item."""
    for name in NAMES:
        (tmp_path / f"in-data-{name}.csv").touch()
    source = """
out = Product("d/{{ dag.dag_id }}-{n}.txt", temporary=True)
kwargs = {"n": "", "out": out, "in": External("in-{{ dag.dag_id }}-{n}.csv", timeout=20)}
made = Task("made", function="steps:make", kwargs=kwargs).map(n=names.result)
kept = Task("kept", function="steps:make", kwargs={"n": "", "out": Product("kept-{n}.txt")}).map(n=names.result)
Task("last", function="steps:give", kwargs={"d": Dependency("d"), "made": made.result})
"""
    result = run_dag(group(source).dag)
    assert set(result.states.values()) == {"success"}
    assert len([task for task in result.states if "wait" in task]) == len(NAMES)
    assert {path.name for path in tmp_path.glob("kept-*")} == {f"kept-{name}.txt" for name in NAMES}
    assert os.listdir(tmp_path / "d") == [".sewer"]


@pytest.mark.parametrize("is_mapped", [False, True], ids=["one", "mapped"])
def test_sewer_task_group_passes_arguments_literally(dag, file, where, run_dag, is_mapped):
    """Whole, in a list, in a text, in a path, in the environment; of one group and of a mapped one."""
    source = """
    @workflow
    def flow(n):
        Task("call", function="functions:give", kwargs={"whole": n, "nested": [n], "text": f"{n}"}).run()
        Task("job", "job", {"path": f"{n}/x"}, args=[n], env={"A": f"{n}"}).run()
    """
    path, texts = file(source), NAMES if is_mapped else NAMES[5:6]
    with dag:
        if is_mapped:
            sewer_task_group.partial(path, group_id="g", **where).expand(n=give(literal(texts)))
        else:
            sewer_task_group(path, group_id="g", arguments={"n": give(literal(texts[0]))}, **where)
    results = run_dag(dag).results
    for index, text in enumerate(texts):
        at = f"[{index}]" if is_mapped else ""
        assert results[f"g.call{at}"] == {"whole": text, "nested": [text], "text": text}
        assert results[f"g.job{at}"]["argv"] == [text, "--path", f"{text}/x"]
        assert results[f"g.job{at}"]["A"] == text


def test_env_of_a_group_passes_an_xcom_literally(dag, file, where, run_dag):
    """It is text, also in a DAG with native objects."""
    env = {**where.pop("env"), "A": None}
    with dag:
        for index, text in enumerate(("1.10", NAMES[0], "a\r\n")):
            env["A"] = give.override(task_id=f"give{index}")(literal(text))
            sewer_task_group(file("Task('t', 'job')"), group_id=f"g{index}", env=dict(env), **where)
    results = run_dag(dag).results
    assert [results[f"g{index}.t"]["A"] for index in range(3)] == ["1.10", NAMES[0], "a\r\n"]


def test_sewer_task_group_runtime_value_in_key_raises(file, where):
    """A key is the same in all runs, and no template in it is filled in."""
    path = file("""
    @workflow
    def flow(n):
        Task("t", function="functions:give", kwargs={"x": {f"{n}": 1}}).run()
    """)
    message = r"flow\.py:\d+: task 't': the key of a mapping must be known before the task runs, got 'n'"
    with DAG("key", schedule=None), pytest.raises(SewerError, match=message):
        sewer_task_group(path, arguments={"n": give("x")}, **where)


# -- The same as in sppe -----------------------------------------------------------------------------------------------

TEXTS = ["{#1}", "before {# x #} after", "#}", "%}", "}}", "# if x", "## x", "\n", "a\r\nb\n", "{n}", "007", "1.10"]


def test_airflow_and_sppe_pass_the_same_text(dag, file, where, run_dag, run_sewer_file):
    """In each string field, single and mapped; a path keeps its name."""
    path = file(f"""
    texts = {TEXTS!r}
    Task("job", "job", {{"x": texts, "y": {{"k{{#": texts}}}}, args=texts, env={{"A": "-----\\nabc\\r\\n{{#"}})
    Task("call", function="functions:give", kwargs={{"x": texts, "y": {{"k\\r\\n": texts}}}})
    Task("each", function="functions:give", kwargs={{"n": ""}}).map(n=texts)
    Task("made", function="functions:write", kwargs={{"out": Product("{{#1}}-{{# x #}}\\r\\n.txt")}})
    """)
    outcomes = run_sewer_file(path, **where)
    alone = {name: outcome.result for name, outcome in outcomes.items()}
    with dag:
        sewer_task_group(path, group_id="g", **where)
    results = run_dag(dag).results
    for name in ("job", "call", "made"):
        assert results[f"g.{name}"] == alone[name]
    each = [alone[name] for name in alone if name.startswith("each")]
    assert [results[f"g.each[{index}]"] for index in range(len(TEXTS))] == each


@pytest.mark.parametrize("who", ["Bob", "#}", "{#"])
def test_airflow_and_sppe_pass_the_same_text_around_an_argument(dag, file, where, run_dag, run_sewer_file, who):
    """Text around a run-time value is not a Jinja comment."""
    path = file("""
    from airflow_provider_sewer import workflow

    @workflow
    def greet(who: str):
        texts = ["{#1." + who, "x{#" + who + "#}y", "{# note #} " + who]
        Task("call", function="functions:give", kwargs={"x": texts}).run()
    """)
    alone = run_sewer_file(path, arguments={"who": who}, **where)["call"].result
    with dag:

        @task
        def name():
            return who

        sewer_task_group(path, group_id="g", arguments={"who": name()}, **where)
    assert run_dag(dag).results["g.call"] == alone


@pytest.mark.parametrize("text", ["{{ ds }}", "{% if x %}", "{{", "{%"])
@pytest.mark.parametrize(
    "task",
    [
        "Task('t', 'job', {'x': [TEXT]})", "Task('t', 'job', args=[TEXT])", "Task('t', 'job', env={'A': TEXT})",
        "Task('t', 'job', workdir=TEXT)", "Task('t', 'job', products=[TEXT])", "Task('t', TEXT)",
        "Task('t', function='f:f', kwargs={'x': {'y': TEXT}})", "Task('t', 'job', {'x': Ignored(TEXT)})",
    ],
)  # fmt: skip
def test_sppe_warns_of_template_that_only_airflow_renders(file, run_sewer_file, task, text):
    """The same text that Airflow takes for a template."""
    path = file(task.replace("TEXT", repr(text)))
    with pytest.raises(SewerError, match=r"flow\.py:2: task 't': '.*' is rendered only by Airflow"):
        run_sewer_file(path, python=sys.executable)
