"""Products in a complete Airflow: overlapping runs share temporary ones, and a cleared task produces its own again."""

from __future__ import annotations

from textwrap import dedent

import pytest

from .deployment import Airflow

#: Waits while there is a file ``hold-NAME``, fails if there is ``fail-NAME``, and copies or makes a file.
STEP = """
import os, sys, time

def main(name, source, target):
    with open(f"ran-{name}", "a") as file:
        file.write("x")
    text = open(source).read() if source else "made"
    deadline = time.monotonic() + 300
    while os.path.exists(f"hold-{name}") and time.monotonic() < deadline:
        time.sleep(0.1)
    text = open(source).read() if source else text
    if os.path.exists(f"fail-{name}"):
        raise RuntimeError("it fails")
    for each in (target, f"{target}.index"):
        with open(each, "w") as file:
            file.write(text)
"""

FLOW = """
from airflow_provider_sewer import Dependency, Product, Task

TAG = "{{ dag_run.conf['tag'] }}"
raw = Task("raw", function="step:main", run_when="RUN_WHEN",
           kwargs={"name": f"raw-{TAG}", "source": "", "target": Product("raw.txt", temporary=True)})
use = Task("use", function="step:main",
           kwargs={"name": f"use-{TAG}", "source": Dependency("raw.txt"), "target": Product("use.txt")})
"""

DAG = """
import sys
from pathlib import Path
from airflow.sdk import DAG
from airflow_provider_sewer import Product
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.task_group import sewer_task_group

here = Path(__file__).parent
slurm = {"cluster": "local", "run_dir": here / "runs", "deferrable": True}
for dag_id, run_when in (("always", "always"), ("missing", "missing"), ("jobs", "always")):
    (here / dag_id).mkdir(exist_ok=True)
    with DAG(dag_id, schedule=None):
        jobs = {"run_on": "slurm", **slurm} if dag_id == "jobs" else {}
        sewer_task_group(f"flow_{run_when}.py", workdir=here / dag_id, python=sys.executable, group_id="g",
                         env={"PYTHONPATH": str(here)}, **jobs)

(here / "overlap").mkdir(exist_ok=True)
with DAG("overlap", schedule=None):
    tag = "{{ dag_run.conf['tag'] }}"
    common = dict(function="step:main", workdir=here / "overlap", python=sys.executable, env={"PYTHONPATH": str(here)})
    wait = {"name": f"wait-{tag}", "source": "", "target": f"wait-{tag}.txt"}
    last = PythonModuleOperator(task_id="wait", op_kwargs=wait, **common)
    for task_id, operator, more in (("local", PythonModuleOperator, {}), ("job", SlurmModuleOperator, slurm)):
        kwargs = {"name": task_id, "source": "", "target": Product(f"{task_id}.txt")}
        operator(task_id=task_id, op_kwargs=kwargs, **common, **more) >> last

(here / "waits").mkdir(exist_ok=True)
with DAG("waits", schedule=None):
    common = dict(function="step:main", workdir=here / "waits", python=sys.executable, env={"PYTHONPATH": str(here)})
    before = {"name": f"before-{tag}", "source": "", "target": f"before-{tag}.txt"}
    rests = {"name": "rests", "source": "", "target": Product("rests.txt")}
    PythonModuleOperator(task_id="before", op_kwargs=before, **common) >> PythonModuleOperator(
        task_id="rests", op_kwargs=rests, run_when="stale", **common
    )

with DAG("rests", schedule=None):
    for task_id, operator, more in (("local", PythonModuleOperator, {}), ("job", SlurmModuleOperator, slurm)):
        (here / task_id).mkdir(exist_ok=True)
        for run_when in ("missing", "stale"):
            name = f"{task_id}_{run_when}"
            target = Product(f"{name}.txt")
            operator(task_id=name, function="step:main", op_kwargs={"name": name, "source": "", "target": target},
                     workdir=here / task_id, python=sys.executable, env={"PYTHONPATH": str(here)}, run_when=run_when,
                     **more)
"""


REMOVE = "g.remove_raw_txt"


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    for name, text in (("step", STEP), ("dag", DAG)):
        (home / "dags" / f"{name}.py").write_text(dedent(text))
    for run_when in ("always", "missing"):
        (home / "dags" / f"flow_{run_when}.py").write_text(FLOW.replace("RUN_WHEN", run_when))
    (home / "dags" / ".airflowignore").write_text("step.py\nflow_.*\n")
    with Airflow(home) as airflow:
        yield airflow


@pytest.mark.parametrize("dag_id", ["always", "missing", "jobs"])
def test_remove_products_keeps_product_used_by_overlapping_run(airflow, dag_id):
    """Whether that run has produced it or found it up to date; the last run removes it, with the files beside it."""
    folder = airflow.home / "dags" / dag_id
    (folder / "hold-use-1").touch()
    (folder / "hold-use-2").touch()
    one = airflow.trigger(dag_id, {"tag": "1"})
    airflow.until((folder / "ran-use-1").exists, "the first run to read the file")
    two = airflow.trigger(dag_id, {"tag": "2"})
    airflow.until((folder / "ran-use-2").exists, "the second run to read the file")
    if dag_id == "missing":
        assert not (folder / "ran-raw-2").exists()

    (folder / "hold-use-1").unlink()
    airflow.wait_for_state(dag_id, one, REMOVE, "success")
    assert (folder / "raw.txt").exists()
    output = [line["event"] for line in airflow.log(dag_id, one, REMOVE)]
    assert f"Left {folder}/raw.txt to run {two!r} of DAG {dag_id!r} (task 'g.raw'), which uses it" in output

    (folder / "hold-use-2").unlink()
    airflow.wait_for_state(dag_id, two, REMOVE, "success")
    assert sorted(path.name for path in folder.glob("raw*")) == []
    assert not [*folder.glob(".sewer/*.runs")]
    warned = [line["event"] for line in airflow.log(dag_id, two, "g.raw")]
    begin = f"run {one!r} of DAG {dag_id!r} (task 'g.raw') has also produced {folder}/raw.txt and has not ended"
    assert any(line.startswith(begin) for line in warned)


def test_run_warns_of_product_of_unfinished_run(airflow):
    """On a worker and as a job; once the other run has ended, no more."""
    folder = airflow.home / "dags" / "overlap"
    (folder / "hold-wait-1").touch()
    one = airflow.trigger("overlap", {"tag": "1"})
    airflow.until((folder / "ran-wait-1").exists, "the first run to wait")
    two = airflow.trigger("overlap", {"tag": "2"})
    airflow.until(lambda: airflow.run_state("overlap", two) == "success", "the end of the second run")
    (folder / "hold-wait-1").unlink()
    airflow.until(lambda: airflow.run_state("overlap", one) == "success", "the end of the first run")
    three = airflow.trigger("overlap", {"tag": "3"})
    airflow.until(lambda: airflow.run_state("overlap", three) == "success", "the end of the third run")

    for task in ("local", "job"):
        warning = f"run {one!r} of DAG 'overlap' has also produced {folder}/{task}.txt and has not ended"
        lines = [[line["event"] for line in airflow.log("overlap", run_id, task)] for run_id in (two, three)]
        assert [any(line.startswith(warning) for line in each) for each in lines] == [True, False]
        assert not any("has not ended" in line for line in lines[1])


def test_remove_products_ignores_claim_of_failed_run(airflow):
    """A run that has ended keeps its product only until a later run removes it."""
    folder = airflow.home / "dags" / "always"
    (folder / "fail-use-3").touch()
    failed = airflow.trigger("always", {"tag": "3"})
    airflow.until(lambda: airflow.run_state("always", failed) == "failed", "the end of the run")
    assert (folder / "raw.txt").exists()

    run_id = airflow.trigger("always", {"tag": "4"})
    airflow.wait_for_state("always", run_id, REMOVE, "success")

    assert not (folder / "raw.txt").exists()


def test_clear_runs_up_to_date_task_that_has_never_run(airflow):
    """It was skipped after an upstream failure; a clear does not raise its max_tries."""
    folder = airflow.home / "dags" / "waits"

    def ends(tag: str, state: str) -> str:
        run_id = airflow.trigger("waits", {"tag": tag})
        airflow.until(lambda: airflow.run_state("waits", run_id) == state, f"the end of run {tag}")
        return run_id

    ends("1", "success")
    (folder / "fail-before-2").touch()
    run_id = ends("2", "failed")
    assert airflow.state("waits", run_id, "rests") == "upstream_failed"
    (folder / "fail-before-2").unlink()
    airflow.clear("waits", run_id, ["before", "rests"])
    airflow.wait_for_state("waits", run_id, "rests", "success")
    assert len((folder / "ran-rests").read_text()) == 2

    ends("3", "success")
    assert len((folder / "ran-rests").read_text()) == 2


def test_clear_runs_task_that_is_up_to_date(airflow):
    """On a worker and as a job, with any `run_when`, once per clear; another run skips it."""
    tasks = [f"{where}_{mode}" for where in ("local", "job") for mode in ("missing", "stale")]

    def ran() -> dict[str, int]:
        return {
            task: len((airflow.home / "dags" / task.partition("_")[0] / f"ran-{task}").read_text()) for task in tasks
        }

    def ends(run_id: str) -> None:
        airflow.until(lambda: airflow.run_state("rests", run_id) == "success", "the end of the run")

    first = airflow.trigger("rests")
    ends(first)
    second = airflow.trigger("rests")
    ends(second)
    assert ran() == dict.fromkeys(tasks, 1)

    airflow.clear("rests", second, tasks)
    airflow.until(lambda: all(airflow.try_number("rests", second, task) == 2 for task in tasks), "the second tries")
    ends(second)
    assert ran() == dict.fromkeys(tasks, 2)
    assert "Running: the task was cleared" in [line["event"] for line in airflow.log("rests", second, tasks[0], 2)]

    ends(airflow.trigger("rests"))
    assert ran() == dict.fromkeys(tasks, 2)
