"""@task.slurm_module: the returned arguments apply to the job across all tries."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from airflow.sdk import DAG, task

from airflow_provider_sewer import Product, SewerError
from airflow_provider_sewer.slurm.job_runner import JobRunner


@pytest.fixture
def local(defaults):
    """Return arguments that run jobs as processes of this machine."""
    return {**defaults, "cluster": "local", "poll_interval": 0.1}


@pytest.fixture
def calls():
    """Return a list in which a function records its calls."""
    return []


def test_slurm_module_passes_returned_parameters(on_slurm, defaults, echo, run_dag):
    """On a cluster, with sbatch options from another task."""

    @task
    def size():
        return {"cpus_per_task": 2}

    with DAG("on_slurm", schedule=None) as dag:

        @task.slurm_module(slurm=size(), **echo, **defaults)
        def train(n, *, dag):
            return {"n": n, "in": "{{ dag.dag_id }}", "of": dag.dag_id}

        train.expand(n=[1, 2])
    assert dag.get_task("train").upstream_task_ids == {"size"}
    results = run_dag(dag).results
    assert [results[f"train[{i}]"]["argv"] for i in (0, 1)] == [
        f"--n {n} --in {{{{ dag.dag_id }}}} --of on_slurm" for n in (1, 2)
    ]


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_python_callable_is_called_once_per_job(local, made, run_dag, calls, tmp_path, shown, deferrable):
    """Resuming after a deferral commits the product path passed to the job, and shows it."""

    @task.slurm_module(deferrable=deferrable, run_when="stale", workdir=str(tmp_path), **made, **local)
    def make(out, *, dag):
        calls.append(out)
        return {"out": Product(f"{out}-{len(calls)}-{dag.dag_id}.txt")}

    with DAG("once", schedule=None) as dag:
        make(str(deferrable))
    result = run_dag(dag)
    assert (result.states, result.results) == ({"make": "success"}, {"make": "ran"})
    assert calls == [str(deferrable)]
    product = f"{deferrable}-1-once.txt"
    assert (tmp_path / product).read_text() == "made"
    assert shown("once", "make", "parameters_and_flags") == {"out": product}


@pytest.fixture
def first_try_crashes(monkeypatch):
    """Let the first try that follows a job end as if its worker had lost its mind, leaving the job alone."""
    tries = itertools.count()
    follow = JobRunner.follow

    def crash_once(self, job):
        if next(tries) == 0:
            raise RuntimeError("a crash")
        return follow(self, job)

    monkeypatch.setattr(JobRunner, "follow", crash_once)


def test_retry_after_crash_uses_recorded_arguments(local, made, run_dag, calls, tmp_path, first_try_crashes):
    """The function is not called again, though it would return something else by now; nor is there a second job."""

    @task.slurm_module(retries=1, retry_delay=timedelta(0), workdir=str(tmp_path), **made, **local)
    def make(ti):
        calls.append(ti.try_number)
        return {"out": Product(f"try-{ti.try_number}.txt")}

    with DAG("crash", schedule=None) as dag:
        make()
    assert run_dag(dag).results == {"make": "ran"}
    assert calls == [1]
    assert [path.name for path in tmp_path.glob("try-*")] == ["try-1.txt"]
    assert len(list((tmp_path / "runs").glob("**/job.sh"))) == 1


def test_retry_after_failure_calls_python_callable_again(local, module, run_dag, calls, tmp_path):
    """A new job gets the newly returned arguments; the first job's product is removed."""
    job = module("""
        import sys
        with open(sys.argv[2], "w") as file: file.write("x")
        sys.exit("try-1" in sys.argv[2])
    """)

    @task.slurm_module(retries=1, retry_delay=timedelta(0), workdir=str(tmp_path), **job, **local)
    def make(ti):
        calls.append(ti.try_number)
        return {"out": Product(f"try-{ti.try_number}.txt")}

    with DAG("again", schedule=None) as dag:
        make()
    assert run_dag(dag).state == "success"
    assert calls == [1, 2]
    assert {path.name for path in tmp_path.glob("try-*")} == {"try-1.txt.failed", "try-2.txt"}


class Rate(float):
    """A number as libraries make them."""


def test_up_to_date_products_submit_no_job(local, made, run_dag, calls, tmp_path):
    """The function determines the products and the parameters."""

    @task.slurm_module(run_when="stale", workdir=str(tmp_path), **made, **local)
    def make():
        calls.append(1)
        return {"out": Product("out.txt"), "rate": Rate(0.5), "config": {"rate": Rate(0.5)}}

    with DAG("rests", schedule=None) as dag:
        make()
    assert [run_dag(dag).results["make"] for _ in range(2)] == ["ran", "ran"]
    assert len(calls) == 2
    assert len(list((tmp_path / "runs").glob("**/job.sh"))) == 1


def test_invalid_arguments_raise_at_parse_time():
    """As with the operator."""

    @task.slurm_module(module="m", slurm={"gpus": 1})
    def make():
        return {}

    with DAG("parsed", schedule=None), pytest.raises(SewerError, match="task 'make': slurm: unknown Slurm parameter"):
        make()
