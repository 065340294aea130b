"""Manifests for Argo: their structure, and their meaning, which an interpreter of the DAG shows."""

from __future__ import annotations

import inspect
import json
import textwrap
from datetime import timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer import Dependency, External, Ignored, Product, Task, load_workflow
from airflow_provider_sewer.core.call import CALLER
from airflow_provider_sewer.core.cli_args import to_arguments
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.placeholders import RuntimeValue
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.exporters.argo import task_program
from airflow_provider_sewer.exporters.argo.argo_names import Names
from airflow_provider_sewer.exporters.argo.manifest import PROGRAM, Target, to_argo
from airflow_provider_sewer.exporters.argo.pod_files import Volume
from airflow_provider_sewer.exporters.argo.task_values import to_json_without_names
from tests.exporters.argo_interpreter import Interpreter, PodFailed, check

#: A module that shows its arguments, writes a file and a result, and functions.
WORK = """
import argparse, json, os, sys

def double(x):
    return {"x": x, "twice": x * 2}

def collect(values, name="", **more):
    print(json.dumps([values, name, more]))
    return values

def rows():
    return ["a", 1, {"b": [2]}, "{{workflow.uid}}"]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out")
    parser.add_argument("--read")
    parser.add_argument("--fail", action="store_true")
    given, rest = parser.parse_known_args()
    if given.out:
        open(given.out, "w").write("written")
        open(given.out + ".aux", "w").write("beside")
    if given.fail:
        sys.exit(3)
    print(json.dumps([open(given.read).read() if given.read else None, rest]))
    if "SEWER_RESULT_FILE" in os.environ:
        open(os.environ["SEWER_RESULT_FILE"], "w").write(json.dumps({"n": 7, "text": 'a "q" {{x}} \\\\ \\n'}))
"""
VOLUME = Target("registry.example.org/work:1", Volume("claim"))
ARTIFACTS = Target("registry.example.org/work:1")


@pytest.fixture
def manifest(tmp_path):
    """Return the manifest of a workflow file, or of tasks, as data; its structure is checked."""

    def made(given, target=VOLUME, parameters=None):
        if isinstance(given, str):
            file = tmp_path / "flow.py"
            file.write_text("from airflow_provider_sewer import *\n" + textwrap.dedent(given))
            given = load_workflow(file, arguments={name: RuntimeValue(name) for name in parameters or {}})
        data = yaml.safe_load(to_argo(given, parameters or {}, target).to_yaml())
        check(data)
        return data

    return made


@pytest.fixture
def run(tmp_path):
    """Run a manifest and return the interpreter."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "work.py").write_text(WORK)
    (tmp_path / "pods").mkdir()

    def done(data, **more):
        interpreter = Interpreter(data, tmp_path / "pods", modules, **more)
        interpreter.run()
        return interpreter

    return done


def flow(*tasks, edges=()):
    """Return a workflow of tasks."""
    return Workflow("flow", tasks, edges)


def container(data, name):
    """Return the template of a task."""
    return next(template for template in data["spec"]["templates"] if template["name"] == name)


def test_module_without_placeholders_is_its_command(manifest):
    data = manifest(flow(Task("a", "work", {"n": 1, "dry_run": True}, args=["sub"], python="python3.12")))
    assert container(data, "a")["container"]["command"] == ["python3.12", "-u"]
    assert container(data, "a")["container"]["args"] == ["-m", "work", "sub", "--n", "1", "--dry-run"]
    assert "arguments" not in data["spec"]


def test_depends_follows_edges(manifest, run):
    data = manifest(
        """
        a, b, c, d = (Task(name, "work") for name in "abcd")
        a >> [b, c] >> d
        """
    )
    tasks = {task["name"]: task.get("depends") for task in data["spec"]["templates"][-1]["dag"]["tasks"]}
    assert tasks == {"a": None, "b": "a", "c": "a", "d": "b && c"}
    assert run(data).order in (["a", "b", "c", "d"], ["a", "c", "b", "d"])


def test_result_arrives_with_its_type(manifest, run):
    data = manifest(
        """
        first = Task("first", "work")
        Task("second", function="work:collect", kwargs={
            "values": [first.result["n"], first.result["text"]], "name": first.result, "$x": 1})
        """.replace('"$x": 1', '"more": {"$x": 1}')
    )
    shown = json.loads(run(data).output["second"])
    text = 'a "q" {{x}} \\ \n'
    assert shown == [[7, text], {"n": 7, "text": text}, {"more": {"$x": 1}}]


def test_result_of_loop_arrives_in_order(manifest, run):
    data = manifest(
        """
        each = Task("each", function="work:double").map(x=[1, "2", [3]])
        Task("last", function="work:collect", kwargs={"values": each.result, "name": each[1].result["twice"]})
        """
    )
    assert [task.get("withItems") is not None for task in data["spec"]["templates"][-1]["dag"]["tasks"]] == [
        True,
        False,
    ]
    values = [{"x": 1, "twice": 2}, {"x": "2", "twice": "22"}, {"x": [3], "twice": [3, 3]}]
    assert json.loads(run(data).output["last"]) == [values, "22", {}]


def test_map_over_result_makes_one_pod_for_each_value(manifest, run):
    data = manifest(
        """
        rows = Task("rows", function="work:rows")
        each = Task("each", function="work:collect", kwargs={"name": "n"}).map(values=rows.result)
        again = Task("again", function="work:collect").map(values=each.result)
        Task("last", function="work:collect", kwargs={"values": again.result})
        """
    )
    interpreter = run(data)
    rows = ["a", 1, {"b": [2]}, "{{workflow.uid}}"]
    assert json.loads(interpreter.output["each(2)"]) == [{"b": [2]}, "n", {}]
    assert json.loads(interpreter.output["last"]) == [rows, "", {}]


def test_map_over_result_names_value_in_product(manifest, run, tmp_path):
    data = manifest(
        """
        rows = Task("rows", function="work:rows", kwargs={})
        few = Task("few", function="work:collect", kwargs={"values": ["x", 5]})
        Task("each", "work", {"out": Product("build/{n}/out.txt")}).map(n=few.result)
        """
    )
    run(data)
    assert (tmp_path / "pods/volume/build/5/out.txt").read_text() == "written"
    assert (tmp_path / "pods/volume/build/x/out.txt.aux").read_text() == "beside"


def test_instances_before_and_after_a_task_are_not_a_loop(manifest, run):
    data = manifest(
        """
        each = Task("each", "work").map(n=[1, 2])
        middle = Task("middle", "work")
        each[0] >> middle >> each[1]
        """
    )
    assert run(data).order == ["each-n-1", "middle", "each-n-2"]


def test_workflow_arguments_become_parameters(manifest, run):
    data = manifest(
        """
        @workflow
        def main(n, label, parts):
            Task("a", function="work:collect", kwargs={"values": n, "name": f"<{label}>", "more": parts["x"]}).run()
        """,
        parameters={"n": 3, "label": "a", "parts": {"x": [1]}},
    )
    assert json.loads(run(data, parameters={"label": '"{{b}}" \\'}).output["a"]) == [3, '<"{{b}}" \\>', {"more": [1]}]


def test_product_on_volume_is_whole(manifest, run, tmp_path):
    tasks = Task("a", "work", {"out": Product("build/a.txt"), "fail": True})
    with pytest.raises(PodFailed, match="exit code 3"):
        run(manifest(flow(tasks)))
    assert list((tmp_path / "pods/volume/build").iterdir()) == []


def test_products_pass_as_artifacts(manifest, run):
    data = manifest(
        flow(
            Task("a", "work", {"out": Product("build/a.txt")}),
            Task("b", "work", {"read": Dependency("build/a.txt")}),
        ),
        ARTIFACTS,
    )
    assert json.loads(run(data).output["b"]) == ["written", []]
    assert container(data, "b")["inputs"]["artifacts"] == [{"name": "dependency-0", "path": "/workspace/build/a.txt"}]


@pytest.mark.parametrize("target", [VOLUME, ARTIFACTS])
def test_streams_are_files(target, manifest, run, monkeypatch):
    """The pod redirects them, also in a loop, and buffers stdout as a run does."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    data = manifest(
        flow(
            Task("a", "work", args=["x"], stdout="build/a.json"),
            *Task("b", "json.tool", stdin="build/a.json", stdout=Product("build/{indent}.json")).map(indent=[1, 2]),
            Task("c", "json.tool", args=["--compact"], stdin=Dependency("build/2.json")),
        ),
        target,
    )
    interpreter = run(data)
    assert json.loads(interpreter.output["c"]) == [None, ["x"]]
    assert interpreter.output["a"] == ""


def test_failed_task_with_stdout_has_no_product(manifest, run, tmp_path):
    with pytest.raises(PodFailed, match="exit code 3"):
        run(manifest(flow(Task("a", "work", {"fail": True}, stdout="build/a.json"))))
    assert list((tmp_path / "pods/volume/build").iterdir()) == []


def test_module_arguments_equal_those_of_sppe(manifest, run):
    parameters = {
        "n": 1.5,
        "none": None,
        "no": False,
        "yes": True,
        "several": ["a", 2],
        "data": {"k": "ä"},
        "j": Ignored(4),
    }
    first, second = Task("first", "work"), Task("second", "work", parameters, args=["x", -1])
    second_with_result = Task("third", "work", {**parameters, "z": first.result["n"]}, args=["x", -1])
    interpreter = run(manifest(flow(first, second, second_with_result)))
    plain = json.loads(interpreter.output["second"])[1]
    flag = plain.index("--yes")
    assert json.loads(interpreter.output["third"])[1] == [*plain[:flag], "--z", "7", *plain[flag:]]


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(),
    st.lists(st.one_of(st.integers(), st.text()), max_size=3), st.dictionaries(st.text(), st.integers(), max_size=2),
)  # fmt: skip


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), _VALUES), st.booleans())
def test_arguments_of_program_equal_those_of_core(parameters, use_underscores):
    try:
        expected = to_arguments(parameters, use_underscores=use_underscores, args=["a"])
    except InvalidTask:
        return
    assert task_program.arguments(parameters, ["a"], use_underscores) == expected


@given(st.recursive(_VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_without_names_is_same_data(data):
    text = to_json_without_names(data)
    assert json.loads(text) == data
    assert "{{" not in text


@pytest.mark.parametrize("program", [PROGRAM, CALLER], ids=["run.py", "call.py"])
def test_program_has_no_name_for_argo(program):
    assert "{{" not in program


def test_secret_variable_comes_from_kubernetes_secret(run, tmp_path):
    task = Task("a", function="os:getenv", kwargs={"key": "API_TOKEN"}, env={"API_TOKEN": "s3cr3t-value", "PLAIN": "x"})
    made = to_argo(flow(task), {}, Target("i:1", secret="mine"))
    assert (made.secret, made.variables) == ("mine", ("API_TOKEN",))
    assert "s3cr3t-value" not in made.to_yaml()
    env = container(yaml.safe_load(made.to_yaml()), "a")["container"]["env"]
    assert env[0] == {"name": "API_TOKEN", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "API_TOKEN"}}}
    assert env[1] == {"name": "PLAIN", "value": "x"}


def test_resources_come_from_slurm_and_resources(manifest):
    task = Task(
        "a", "work", slurm={"cpus_per_task": 2, "mem_gb": 1.5, "timeout_min": 5, "partition": "p"}, resources={"gpu": 1}
    )
    data = container(manifest(flow(task)), "a")
    amounts = {"cpu": "2", "memory": "1536Mi", "nvidia.com/gpu": "1"}
    assert data["container"]["resources"] == {"limits": amounts, "requests": amounts}
    assert data["activeDeadlineSeconds"] == "300"


def test_retries_and_timeout_come_from_operator_kwargs(manifest):
    kwargs = {
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(seconds=90),
    }
    data = container(manifest(flow(Task("a", "work", operator_kwargs=kwargs))), "a")
    backoff = {"duration": "60", "factor": "2", "cap": "3600"}
    assert data["retryStrategy"] == {"limit": "2", "retryPolicy": "Always", "backoff": backoff}
    assert data["activeDeadlineSeconds"] == "90"


def test_tags_are_labels_and_doc_is_an_annotation(manifest):
    metadata = container(manifest(flow(Task("a", "work", tags=["night", "gpu"], doc="**What** it does"))), "a")[
        "metadata"
    ]
    assert metadata["labels"] == {"airflow-provider-sewer/night": "true", "airflow-provider-sewer/gpu": "true"}
    assert metadata["annotations"] == {
        "airflow-provider-sewer/task": "a",
        "airflow-provider-sewer/doc": "**What** it does",
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"run_when": "missing", "products": "a"}, "task 'a': run_when must be 'always' for Argo, got 'missing'"),
        ({"dependencies": External("x")}, r"task 'a': dependencies must not contain External\('x'\) for Argo"),
        ({"inherit_env": ["X"]}, "task 'a': inherit_env must be unset for Argo"),
        ({"operator_kwargs": {"pool": "p"}}, "task 'a': operator_kwargs must be among .*, got 'pool'"),
        ({"resources": {"db": 1}}, "task 'a': resources must name only 'gpu' for Argo, got 'db'"),
        ({"parameters_and_flags": {"day": "{{ ds }}"}}, "task 'a': template '{{ ds }}' is rendered only by Airflow"),
        ({"workdir": "~/x"}, "task 'a': workdir must not begin with ~ for Argo"),
    ],
)
def test_to_argo_rejects_field_without_counterpart(fields, message):
    if "dependencies" in fields:
        fields = {"parameters_and_flags": {"in": fields["dependencies"]}}
    with pytest.raises(InvalidTask, match=message):
        to_argo(flow(Task("a", "work", **fields)), {}, VOLUME)


def test_artifacts_reject_dependency_that_no_task_produces():
    with pytest.raises(InvalidTask, match=r"task 'a': dependencies must be products of the workflow, got 'x'; .*claim"):
        to_argo(flow(Task("a", "work", {"in": Dependency("x")})), {}, ARTIFACTS)


def test_every_field_of_a_task_is_exported_or_rejected():
    """A new field must be considered: it is in this list, or in the exporter."""
    exported = {
        "name", "module", "parameters_and_flags", "use_underscores", "args", "function", "kwargs", "python", "env",
        "workdir", "depends_on", "products", "dependencies", "stdin", "stdout", "tags", "doc", "slurm",
    }  # fmt: skip
    rejected = {"inherit_env", "run_when", "resources", "operator_kwargs"}
    without_meaning = {"compare", "stale_with", "group", "run_on", "retry_with", "self", "unknown"}
    assert set(inspect.signature(Task.__init__).parameters) == exported | rejected | without_meaning


def test_names_are_unique_and_valid():
    names = Names()
    found = [names.of(name) for name in ("a b", "a.b", "ä", "x" * 80, "x" * 81, "a b")]
    assert found == ["a-b", "a-b-2", "task", "x" * 63, "x" * 61 + "-2", "a-b"]


def test_mapped_artifact_over_result_is_rejected():
    rows = Task("rows", function="work:rows")
    each = Task("each", "work", {"out": Product("{n}.txt")}).map(n=rows.result)
    with pytest.raises(InvalidTask, match="task 'each': products and dependencies must not be mapped over a result"):
        to_argo(flow(rows, *each), {}, ARTIFACTS)
