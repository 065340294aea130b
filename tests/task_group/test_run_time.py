"""Values that are known only when tasks run: in a workflow file, and in what a DAG gives to a workflow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from airflow.sdk import DAG, Label, task, task_group

from airflow_provider_sewer import SewerError, Task
from airflow_provider_sewer.task_group import create_airflow_task, sewer_task_group

JOB = """
    import json, os, sys
    with open(os.environ["SEWER_RESULT_FILE"], "w") as file:
        json.dump({"argv": sys.argv[1:], "A": os.environ.get("A"), "cwd": os.getcwd()}, file)
"""
FUNCTIONS = """
    def give(**kwargs):
        return kwargs

    def write(out, text="x"):
        with open(out, "w") as file:
            file.write(str(text))
        return text
"""


@pytest.fixture
def file(tmp_path):
    """Write a workflow file beside the modules its tasks run; return its path."""
    (tmp_path / "job.py").write_text(dedent(JOB))
    (tmp_path / "functions.py").write_text(dedent(FUNCTIONS))

    def write(source: str) -> Path:
        path = tmp_path / "flow.py"
        path.write_text("from airflow_provider_sewer import *\n" + dedent(source))
        return path

    return write


@pytest.fixture
def where(tmp_path):
    """Return the arguments of a group whose tasks find these modules."""
    return {"python": sys.executable, "env": {"PYTHONPATH": str(tmp_path)}, "workdir": str(tmp_path)}


@task
def give(value):
    return value


TRAIN = """
    @workflow
    def train(n, config=None, name="svc"):
        first = Task("first", "job", {"n": n, "nested": [{"n": n}], "verbose": True}, args=[n])
        second = Task("second", function="functions:give", kwargs={"n": n, "config": config, "text": f"{n}-{name}"})
        (first >> second).run()
"""


def test_an_xcom_is_an_argument_of_a_workflow_and_makes_the_edge(file, where, run_dag):
    """It keeps its type where it is a whole value, however deep; in a text it is what it says."""
    with DAG("given", schedule=None) as dag:
        rates = give.override(task_id="rates")([0.5])
        sewer_task_group(file(TRAIN), arguments={"n": give(3), "config": {"lr": rates}}, **where)
    assert dag.get_task("train.first").upstream_task_ids == {"give"}
    assert dag.get_task("train.second").upstream_task_ids == {"give", "rates", "train.first"}
    results = run_dag(dag).results
    assert results["train.first"]["argv"] == ["3", "--n", "3", "--nested", '{"n": 3}', "--verbose"]
    assert results["train.second"] == {"n": 3, "config": {"lr": [0.5]}, "text": "3-svc"}


def test_a_part_of_a_value_is_passed_on(file, where, run_dag):
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
    ("parameter", "said"),
    [
        ("config['rate']", "there is no <config['rate']>: the object has the keys 'lr', 'name'"),
        ("f\"{config['items']}\"", "there is no <config['items']>: the object has the keys 'lr', 'name'"),
        ("f\"{config['name'][0]}\"", "there is no <config['name'][0]>: it is 'svc', which has no parts"),
    ],
)
def test_a_part_that_is_not_there_fails_the_task_and_says_what_is(file, where, run_dag, capsys, parameter, said):
    """A typing mistake is not guessed at, whole or in a text."""
    source = f"""
        @workflow
        def parts(config):
            Task("t", "job", {{"lr": {parameter}}}).run()
    """
    with DAG("parts", schedule=None) as dag:
        sewer_task_group(file(source), arguments={"config": give({"lr": 0.5, "name": "svc"})}, **where)
    assert run_dag(dag).states["parts.t"] == "failed"
    assert said in capsys.readouterr().out


def test_a_parameter_of_the_dag_keeps_its_type(file, where, run_dag):
    """In a template it is text; given as an argument it is what it is."""
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
def test_every_field_of_a_task_takes_it(file, run_dag, tmp_path, how):
    """Module, function, parameters, arguments, paths, interpreter, environment, directories, what a job asks for."""
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
    (tmp_path / "makes.py").write_text(
        "import sys\nopen('made/also.txt', 'w')\nopen(sys.argv[sys.argv.index('--out') + 1], 'w')\n" + dedent(JOB)
    )
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


def test_what_the_group_gives_its_tasks_may_be_known_later(file, run_dag, tmp_path):
    """Interpreter, environment, directories and parameters of jobs, each from an XCom; overrides as well."""
    source = """
        here = Task("here", "job", run_on="local")
        there = Task("there", "job")
    """
    with DAG("later", schedule=None) as dag:
        folder = give.override(task_id="folder")(str(tmp_path))
        said = give.override(task_id="said")("red")
        sewer_task_group(
            file(source),
            group_id="g",
            python=give.override(task_id="python")(sys.executable),
            env={"A": said, "PYTHONPATH": folder},
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
    assert dag.get_task("g.there").upstream_task_ids == {"folder", "said", "python", "runs", "line"}
    assert len(list((tmp_path / "runs").glob("later/*/g.there/1"))) == 1


def test_a_single_task_may_be_given_what_is_known_later(file, where, run_dag):
    """create_airflow_task takes what a group takes."""
    with DAG("single", schedule=None) as dag:
        env = {**where["env"], "A": give("blue")}
        file("")
        create_airflow_task(Task("t", "job"), env=env, path_to_python=where["python"], workdir=where["workdir"])()
    assert dag.get_task("t").upstream_task_ids == {"give"}
    assert run_dag(dag).results["t"]["A"] == "blue"


def test_a_file_read_by_another_interpreter_is_called_with_arguments_too(file, where, run_dag, monkeypatch, tmp_path):
    """Those that are known, and those that are known later."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with DAG("elsewhere", schedule=None) as dag:
        arguments = {"n": give(3), "name": "forest"}
        sewer_task_group(file(TRAIN), arguments=arguments, read_with_interpreter=True, **where)
    assert run_dag(dag).results["train.second"] == {"n": 3, "config": None, "text": "3-forest"}


def test_a_dag_is_the_same_at_every_parse(file, where):
    """What is known later leaves no trace of where it lay in memory."""
    from airflow.serialization.serialized_objects import DagSerialization

    def parsed() -> str:
        with DAG("parsed", schedule=None) as dag:
            config = give({"lr": 0.5})
            path = file(TRAIN.replace("config}", "config['lr']}").replace('"config": config', '"config": config["lr"]'))
            sewer_task_group.partial(path, arguments={"config": config}, **where).expand(n=give([1, 2]))
        return json.dumps(DagSerialization.to_dict(dag), sort_keys=True, default=str)

    assert parsed() == parsed()


# -- What cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use", ["if n > 3: pass", "if n: pass", "n == 3", "n in [1, 2]", "[x for x in n]", "Task('t', 'job').map(i=n)"]
)
def test_what_is_known_later_does_not_decide_of_what_a_workflow_is_made(file, where, use):
    """A DAG is the same in all runs; the line that would have it otherwise is named."""
    path = file(f"""
        @workflow
        def decides(n):
            {use}
            Task("t", "job", {{"n": n}}).run()
    """)
    said = r"flow\.py:5: .*<n> is known only when a task runs, and cannot decide"
    with DAG("decides", schedule=None), pytest.raises(SewerError, match=said):
        sewer_task_group(path, arguments={"n": give(3)}, **where)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Task(f't-{n}', 'job').run()", r"flow\.py:5: .*name: 'n' is known only when the task runs"),
        (
            "Task('t', 'job', operator_kwargs={'pool': n}).run()",
            r"flow\.py:5: task 't': operator_kwargs: 'pool' is known",
        ),
        ("Task('t', 'job', {'n': n + 1}).run()", r"flow\.py:5: <n> is known only when a task runs, and cannot be reck"),
        ("Task('t', 'job', {'n': f'{n:.2f}'}).run()", r"flow\.py:5: <n> is known only when .* written as '.2f' before"),
        ("Task('t', 'job', {'n': n.lr}).run()", r"flow\.py:5: <n> is known only when .* no 'lr' before; .* \['lr'\]"),
        ("Task('t', 'job', {**n}).run()", r"flow\.py:5: <n> is known only when a task runs, and cannot decide"),
        ("Task('t', 'job', {'n': str(n).upper()}).run()", r"flow\.py:5: task 't': the text .{{ TASK\..* was changed"),
        ("Task(f'{n}'.upper(), 'job').run()", r"flow\.py:5: task .*: the text .{{ TASK\..* was changed"),
        ("Task('t', 'job', {'n': n[True]}).run()", r"flow\.py:5: <n>: a part of it is named by a key or a position"),
    ],
)
def test_what_wants_to_be_known_before_is_named_with_its_line(file, where, line, said):
    """Names, what Airflow itself has to know, sums."""
    path = file(f"@workflow\ndef w(n):\n    pass\n    {line}")
    with DAG("before", schedule=None), pytest.raises(SewerError, match=said):
        sewer_task_group(path, arguments={"n": give(3)}, **where)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"arguments": {"m": 1}}, r"flow\.py:3: TypeError: train\(\) got an unexpected .*'m'. It takes \(n, config="),
        ({}, r"flow\.py:3: TypeError: train\(\) missing .*'n'. It takes \(n, config=None, name='svc'\); give a value"),
        ({"env": "whole"}, "^env: its names are known only when a task runs"),
        ({"slurm": "whole", "arguments": {"n": 1}}, "^slurm: its names are known only when a task runs"),
        ({"operator_kwargs": {"queue": "whole"}, "arguments": {"n": 1}}, "operator_kwargs: 'queue' is known only when"),
    ],
)
def test_what_the_dag_file_gives_in_vain_is_named(file, arguments, said):
    """While the DAG is parsed."""
    with DAG("vain", schedule=None):
        whole = give({"a": "b"})
        given = {
            field: whole if value == "whole" else {"queue": whole} if "queue" in value else value
            for field, value in arguments.items()
        }
        with pytest.raises(SewerError, match=said):
            sewer_task_group(file(TRAIN), **given)


# -- Mapped groups ---------------------------------------------------------------------------------------------------

MAKES = """
    @workflow
    def makes(n, text="x"):
        out = f"made/{n}/out.txt"
        write = Task("write", function="functions:write", kwargs={"out": Product(out), "text": n}, run_when="stale")
        read = Task("read", "job", {"in": Dependency(out), "n": write.result, "text": text})
        (write >> read).run()
"""


def test_a_group_in_a_mapped_group_has_an_instance_for_each_value(file, where, run_dag, tmp_path):
    """Each sees the results and the products of its own instance."""
    with DAG("mapped", schedule=None) as dag:

        @task_group
        def sweep(n):
            sewer_task_group(file(MAKES), arguments={"n": n, "text": give("same")}, **where)

        sweep.expand(n=give.override(task_id="values")([10, 20]))
    results = run_dag(dag).results
    assert [results[f"sweep.makes.write[{index}]"] for index in (0, 1)] == [10, 20]
    read = [" ".join(results[f"sweep.makes.read[{index}]"]["argv"]) for index in (0, 1)]
    assert read == [f"--in made/{n}/out.txt --n {n} --text same" for n in (10, 20)]
    assert sorted(path.read_text() for path in tmp_path.glob("made/*/out.txt")) == ["10", "20"]

    again = run_dag(dag)
    assert set(again.states.values()) == {"success"}
    assert again.results["sweep.makes.read[1]"] == results["sweep.makes.read[1]"]


def test_a_group_is_mapped_as_airflows_own_are(file, where, run_dag):
    """partial() says what is the same, expand() what differs; of two arguments, each combination."""
    with DAG("expanded", schedule=None) as dag:
        group = sewer_task_group.partial(file(TRAIN), group_id="sweep", arguments={"name": "svc"}, **where).expand(
            n=give([1, 2]), config=[{"lr": 0.1}, {"lr": 0.2}]
        )
        group >> Label("all") >> give.override(task_id="after")("done")
    assert group["first"] is dag.get_task("sweep.first")
    assert group["first"].upstream_task_ids == {"give"}
    results = run_dag(dag).results
    seconds = [results[f"sweep.second[{index}]"] for index in range(4)]
    assert [(each["n"], each["config"]["lr"]) for each in seconds] == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    assert {each["text"] for each in seconds} == {"1-svc", "2-svc"}
    assert results["after"] == "done"


def test_what_is_mapped_over_may_have_the_name_of_what_the_group_says(file, where, run_dag, tmp_path):
    """Each of them keeps its own value, and its own edges."""
    source = """
        @workflow
        def named(workdir, n):
            Task("t", "job", args=[workdir, n]).run()
    """
    with DAG("named", schedule=None) as dag:
        folder, colour = give.override(task_id="folder")(str(tmp_path)), give.override(task_id="colour")("red")
        given = {**where, "workdir": folder, "overrides": {"t": {"env": {"A": colour}}}}
        numbers = give.override(task_id="numbers")([1])
        group = sewer_task_group.partial(file(source), **given).expand(workdir=["/", "/usr"], n=numbers)
    assert group["t"].upstream_task_ids == {"folder", "colour", "numbers"}
    results = run_dag(dag).results
    assert [results[f"named.t[{index}]"] for index in (0, 1)] == [
        {"argv": [over, "1"], "A": "red", "cwd": str(tmp_path)} for over in ("/", "/usr")
    ]


def test_a_loop_in_a_mapped_group_is_tasks_of_their_own(file, where, run_dag):
    """Airflow maps nothing inside of what is mapped, so each value has a task, and each task its instances.

    So has each task of a workflow that is called with what is known later.
    """
    source = """
        @workflow
        def inner(n):
            Task("inside", function="functions:give", kwargs={"n": n}).run()

        @workflow
        def loops(n):
            inner(n)
            each = Task("each", function="functions:give", kwargs={"n": n, "i": 0}).map(i=[1, 2])
            all_ = Task("all", function="functions:give", kwargs={"each": each.result})
            (each >> all_).run()
    """
    with DAG("loops", schedule=None) as dag:
        sewer_task_group.partial(file(source), workflow="loops", **where).expand(n=[10, 20])
    results = run_dag(dag).results
    assert results["loops.inner.inside[1]"] == {"n": 20}
    assert results["loops.all[1]"] == {"each": [{"n": 20, "i": 1}, {"n": 20, "i": 2}]}


def test_what_is_waited_for_and_removed_is_that_of_the_instance(file, where, run_dag, tmp_path):
    """External paths and temporary products with an argument in them."""
    source = """
        @workflow
        def w(n):
            made = Product(f"{n}/made.txt", temporary=True)
            make = Task("make", function="functions:write", kwargs={"out": made}, dependencies=[External(f"{n}.csv")])
            use = Task("use", "job", {"in": Dependency(f"{n}/made.txt")})
            (make >> use).run()
    """
    for name in "ab":
        (tmp_path / f"{name}.csv").touch()
    with DAG("paths", schedule=None) as dag:
        sewer_task_group.partial(file(source), **where).expand(n=["a", "b"])
    result = run_dag(dag)
    assert set(result.states.values()) == {"success"}
    assert len(result.states) == 8
    assert not list(tmp_path.glob("*/made.txt"))


def test_the_jobs_of_a_mapped_group_have_run_directories_of_their_own(file, where, run_dag, tmp_path):
    """One for each instance; none takes the other's result."""
    with DAG("jobs", schedule=None) as dag:
        sewer_task_group.partial(
            file(TRAIN), run_on="slurm", cluster="local", run_dir=tmp_path / "runs", group_id="g",
            operator_kwargs={"poll_interval": 0.1}, **where,
        ).expand(n=[1, 2])  # fmt: skip
    results = run_dag(dag).results
    assert [results[f"g.second[{index}]"]["n"] for index in (0, 1)] == [1, 2]
    (folder,) = (tmp_path / "runs" / "jobs").glob("*/g.first")
    assert sorted(path.name for path in folder.iterdir()) == ["map-0", "map-1"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "Task('t', 'job', {'out': Product('out.txt'), 'n': n}).run()",
            r"flow\.py:4: task 't': all instances of the mapped group 'w' would make 'out.txt'",
        ),
        (
            "a = Task('a', 'job')\n    b = Task('b', 'job', {'n': n}).map(i=a.result)\n    (a >> b).run()",
            r"flow\.py:5: task 'b' is mapped over a result, which Airflow does not do inside of a mapped group",
        ),
    ],
)
def test_what_a_mapped_group_cannot_have_is_named_with_its_line(file, where, source, said):
    """While the DAG is parsed."""
    path = file(f"@workflow\ndef w(n):\n    {source}")
    with DAG("refused", schedule=None), pytest.raises(SewerError, match=said):
        sewer_task_group.partial(path, **where).expand(n=[1, 2])


@pytest.mark.parametrize(
    ("expanded", "said"),
    [
        ({}, "expand: say over what"),
        ({"name": ["x"]}, "expand: 'name' is the same in all instances already"),
        ({"config": "abc"}, "expand: config: a list of values is needed, not 'abc'"),
    ],
)
def test_a_group_that_is_mapped_over_nothing_new_is_refused(file, where, expanded, said):
    """As with Airflow's own."""
    with DAG("refused", schedule=None), pytest.raises(SewerError, match=said):
        sewer_task_group.partial(file(TRAIN), arguments={"n": 1, "name": "svc"}, **where).expand(**expanded)


def test_a_mapped_group_inside_of_another_is_refused(file, where):
    """Airflow would give its instances the values of others."""
    with DAG("nested", schedule=None):

        @task_group
        def outer(n):
            sewer_task_group.partial(file(TRAIN), arguments={"n": n}, **where).expand(name=["a", "b"])

        with pytest.raises(SewerError, match="expand: group 'outer' is mapped already"):
            outer.expand(n=[1, 2])
