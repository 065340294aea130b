"""Groups mapped over run-time values, and groups in mapped groups."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG, Label, task_group

from airflow_provider_sewer import SewerError
from airflow_provider_sewer.task_group import sewer_task_group

from .runtime_value_cases import TRAIN, give

MAKES = """
    @workflow
    def makes(n, text="x"):
        out = f"made/{n}/out.txt"
        write = Task("write", function="functions:write", kwargs={"out": Product(out), "text": n}, run_when="stale")
        read = Task("read", "job", {"in": Dependency(out), "n": write.result, "text": text})
        (write >> read).run()
"""


def test_sewer_task_group_in_mapped_task_group_runs_per_value(file, where, run_dag, tmp_path):
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


def test_partial_expand_maps_group_as_airflow_does(file, where, run_dag):
    """partial() sets common arguments, expand() the differing ones; two arguments give each combination."""
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


def test_expand_argument_may_share_name_with_group_argument(file, where, run_dag, tmp_path):
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


def test_task_map_in_mapped_group_creates_single_tasks(file, where, run_dag):
    """Airflow maps no task in a mapped group, so each value has its own task, and each task its group instances.

    So has each task of a workflow with run-time arguments.
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


def test_path_tasks_of_mapped_group_use_paths_of_their_instance(file, where, run_dag, tmp_path):
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


def test_mapped_group_jobs_have_separate_job_directories(file, where, run_dag, tmp_path):
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
    ("source", "message"),
    [
        (
            "Task('t', 'job', {'out': Product('out.txt'), 'n': n}).run()",
            r"flow\.py:4: task 't': all instances of the mapped group 'w' would write to 'out.txt'",
        ),
        (
            "a = Task('a', 'job')\n    b = Task('b', 'job', {'n': n}).map(i=a.result)\n    (a >> b).run()",
            r"flow\.py:5: task 'b' is mapped over a result, which Airflow does not support in a mapped group",
        ),
    ],
)
def test_mapped_group_unsupported_task_raises_with_line(file, where, source, message):
    """While the DAG is parsed."""
    path = file(f"@workflow\ndef w(n):\n    {source}")
    with DAG("refused", schedule=None), pytest.raises(SewerError, match=message):
        sewer_task_group.partial(path, **where).expand(n=[1, 2])


@pytest.mark.parametrize(
    ("expanded", "message"),
    [
        ({}, r"expand\(\) requires at least one keyword argument, e\.g\. expand\(n="),
        ({"name": ["x"]}, r"expand: 'name' is already set in arguments of partial\(\)"),
        ({"config": "abc"}, "expand: config must be a list of values, got 'abc'"),
        ({"config": range(10**9)}, "expand: config must have at most 100,000 values, got 1,000,000,000"),
    ],
)
def test_expand_invalid_arguments_raise(file, where, expanded, message):
    """As with Airflow's own."""
    with DAG("refused", schedule=None), pytest.raises(SewerError, match=message):
        sewer_task_group.partial(file(TRAIN), arguments={"n": 1, "name": "svc"}, **where).expand(**expanded)


def test_expand_inside_mapped_group_raises(file, where):
    """Airflow would give its instances the values of others."""
    with DAG("nested", schedule=None):

        @task_group
        def outer(n):
            sewer_task_group.partial(file(TRAIN), arguments={"n": n}, **where).expand(name=["a", "b"])

        with pytest.raises(SewerError, match="expand: group 'outer' is already mapped"):
            outer.expand(n=[1, 2])
