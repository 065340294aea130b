"""Causes of stale tasks in Airflow besides files: upstream tasks that ran again, in this DAG run or an earlier one."""

from __future__ import annotations

import sys

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer.task_group import sewer_task_group

STEPS = """
from pathlib import Path

def make(out="", n=None, **_):
    with open("runs.txt", "a") as runs:
        print(Path(out).name, file=runs)
    if Path(f"{Path(out).name}.fails").exists():
        raise RuntimeError("it fails")
    if out:
        Path(out).parent.mkdir(exist_ok=True)
        Path(out).write_text(str(n))
    return n
"""


@pytest.fixture
def run(expand, run_dag, tmp_path):
    """Run a DAG of a workflow file's source, and return the products that were made, by their real names."""
    (tmp_path / "steps.py").write_text(STEPS)
    begin = 'from functools import partial\nStep = partial(Task, function="steps:make", run_when="stale")\n'
    ran = tmp_path / "runs.txt"

    def make(source: str, **arguments) -> list[str]:
        ran.write_text("")
        run_dag(expand(begin + source, **arguments).dag)
        return sorted(ran.read_text().split())

    return make


UPS = {
    "mapped": 'up = Task("up", function="steps:make", kwargs={"n": 0}).map(n=[1, 2])\n',
    "mapped over a result": (
        'rows = Task("rows", function="steps:make", kwargs={"n": [1]})\n'
        'up = Task("up", function="steps:make", kwargs={"n": 0}).map(n=rows.result)\n'
    ),
}


@pytest.mark.parametrize("use", ["depends_on=[*up]", 'kwargs={"n": up.result, "out": Product("b")}'])
@pytest.mark.parametrize("up", UPS.values(), ids=UPS)
def test_stale_after_always_running_mapped_task(run, up, use):
    """Whether it was stated or comes of its results."""
    kwargs = "" if "kwargs" in use else ', kwargs={"out": Product("b")}'
    source = f'{up}Step("b", {use}{kwargs})'

    assert run(source) == ["b"]
    assert run(source) == ["b"]


def test_stale_after_needed_instances_only(run, tmp_path):
    """The other ones can run as they like."""
    source = """
up = Step("up", kwargs={"n": 0, "out": Product("up-{n}")}).map(n=[1, 2, 3])
each = Step("each", kwargs={"n": 0, "in": Dependency("up-{n}"), "out": Product("each-{n}")}).map(n=[1, 2, 3])
some = Step("some", kwargs={"in": [Dependency("up-1"), Dependency("up-2")], "out": Product("some")})
all_of_them = Step("all", kwargs={"out": Product("all")}, depends_on=[*up])
"""
    assert len(run(source)) == 8
    assert run(source) == []
    (tmp_path / "up-3").unlink()
    assert run(source) == ["all", "each-3", "up-3"]


EARLIER = """
a = Step("a", kwargs={"n": 1, "in": Dependency("x"), "out": Product("a")})%s
b = Step("b", kwargs={"out": Product("b")}, depends_on=%s)
"""


@pytest.mark.parametrize("how", ["plain", "mapped", "jobs"])
def test_stale_after_upstream_that_ran_in_previous_dag_run(run, tmp_path, how):
    """In which it failed itself; the run that has left the products of the other one stands in its record."""
    source = EARLIER % ((".map(n=[1])", "[*a]") if how == "mapped" else ("", "a"))
    jobs = {
        "run_on": "slurm",
        "cluster": "local",
        "run_dir": tmp_path / "jobs",
        "operator_kwargs": {"poll_interval": 0.1},
    }
    arguments = jobs if how == "jobs" else {}
    (tmp_path / "x").write_text("1")
    assert run(source, **arguments) == ["a", "b"]

    (tmp_path / "x").write_text("22")
    (tmp_path / "b.fails").touch()
    assert run(source, **arguments) == ["a", "b"]

    (tmp_path / "b.fails").unlink()
    assert run(source, **arguments) == ["b"]
    assert run(source, **arguments) == []


def test_stale_in_mapped_group_per_instance(run_dag, tmp_path):
    """Another instance that ran again makes nothing stale in it."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "flow.py").write_text("""
from airflow_provider_sewer import Product, Task, workflow

@workflow
def each(n):
    up = Task("up", function="steps:make", kwargs={"out": Product(f"up-{n}")}, run_when="stale")
    down = Task("down", function="steps:make", kwargs={"out": Product(f"down-{n}")}, run_when="stale")
    (up >> down).run()
""")
    with DAG("instances", schedule=None) as dag:
        group = sewer_task_group.partial(tmp_path / "flow.py", python=sys.executable, workdir=tmp_path)
        group.expand(n=["x", "y"])

    def made() -> list[str]:
        (tmp_path / "runs.txt").write_text("")
        assert run_dag(dag).state == "success"
        return sorted((tmp_path / "runs.txt").read_text().split())

    assert made() == ["down-x", "down-y", "up-x", "up-y"]
    (tmp_path / "up-y").unlink()
    assert made() == ["down-y", "up-y"]
    assert made() == []
