"""Retries of SlurmModuleOperator that request more than the attempt before."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from tests.waiting import wait_until

AGAIN = {"retries": 1, "retry_delay": timedelta(0)}
#: Waits on the first attempt for its end by Slurm, and prints the requested memory on the next one.
WAITS_ONCE = """
    import os, subprocess, sys, time
    mark = {mark!r}
    tries = int(open(mark).read()) if os.path.exists(mark) else 0
    open(mark, "w").write(str(tries + 1))
    if tries < {failures}:
        open(mark + f"-{{tries}}", "w").write(os.environ["SLURM_JOB_ID"])
        time.sleep(120)
    print("better now")
"""


@pytest.fixture
def killed(tmp_path, module):
    """Return a function that writes a module which waits to be killed for some tries, and then succeeds."""

    def write(failures: int = 1) -> dict:
        return module(WAITS_ONCE.format(mark=str(tmp_path / "tries"), failures=failures))

    return write


@pytest.fixture
def kill(tmp_path, on_slurm):
    """Return a function that lets one job after the other end in a way, in the background."""

    def start(*ways) -> threading.Thread:
        def run() -> None:
            for number, way in enumerate(ways):
                started = tmp_path / f"tries-{number}"
                wait_until(lambda path=started: path.exists() and path.read_text(), "the job has started")
                way(started.read_text())

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return thread

    threads: list = []
    yield start
    for thread in threads:
        thread.join(120)


def asked(on_slurm, directory) -> dict:
    """Return the request of the job of a job directory, by Slurm's own account."""
    job_id = json.loads((directory / "job.json").read_text())["id"]
    text = on_slurm.command("scontrol", "show", "job", "-o", job_id)
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def test_retry_after_out_of_memory_requests_more(
    killed, kill, on_slurm, run_job, deferrable, logged_text, run_directories
):
    """The second job has twice the memory, by Slurm's own account, and the task's log explains it."""
    kill(on_slurm.out_of_memory)
    arguments = {"slurm": {"mem_gb": 0.25}, "retry_with": {"SlurmOutOfMemory": {"mem_gb": 2.0}}}
    assert run_job(deferrable=deferrable, **AGAIN, **arguments, **killed()).results["job"] == "better now"
    assert [asked(on_slurm, each)["MinMemoryNode"] for each in run_directories()] == ["256M", "512M"]
    assert "Retrying with mem_gb=0.5 (was 0.25): out of memory" in logged_text()


def test_retry_after_time_limit_requests_more(
    killed, kill, on_slurm, run_job, deferrable, logged_text, run_directories
):
    """By half, and rounded up, as Slurm counts minutes."""
    kill(on_slurm.time_out)
    arguments = {"slurm": {"timeout_min": 3}, "retry_with": {"SlurmTimeout": {"timeout_min": 1.5}}}
    assert run_job(deferrable=deferrable, **AGAIN, **arguments, **killed()).results["job"] == "better now"
    assert asked(on_slurm, run_directories()[1])["TimeLimit"] == "00:05:00"
    assert "Retrying with timeout_min=5 (was 3): time limit" in logged_text()


def test_lost_node_is_excluded_in_an_extra_try(
    killed, kill, on_slurm, run_job, deferrable, logged_text, run_directories
):
    """The task needs no retries of Airflow, and its second job cannot run on that node."""
    kill(lambda job_id: on_slurm.node_down(on_slurm.command("squeue", "-h", "-j", job_id, "-o", "%N")))
    rules = {"SlurmNodeFailure": {"exclude_node": True, "tries": 1}}
    result = run_job(deferrable=deferrable, slurm={"exclusive": True}, retry_with=rules, **killed())
    assert result.results["job"] == "better now"
    first, second = (asked(on_slurm, each) for each in run_directories())
    assert second["ExcNodeList"] == first["NodeList"] != second["NodeList"]
    node = first["NodeList"]
    assert f"Retrying with exclude={node} (was not set): node failure (extra try 1 of 1)" in logged_text()


def test_preempted_job_moves_to_another_partition(
    killed, kill, on_slurm, run_job, deferrable, logged_text, run_directories
):
    """Within the same try of Airflow."""
    kill(preempt(on_slurm))
    rules = {"SlurmPreempted": {"partition": "main", "tries": 2}}
    slurm = {"partition": "scavenge", "nodelist": "n3", "exclusive": True}
    result = run_job(deferrable=deferrable, slurm=slurm, retry_with=rules, **killed())
    assert result.results["job"] == "better now"
    assert [asked(on_slurm, each)["Partition"] for each in run_directories()] == ["scavenge", "main"]
    assert "Retrying with partition=main (was scavenge): preemption (extra try 1 of 2)" in logged_text()


def test_extra_tries_end_at_their_number(killed, kill, on_slurm, run_job, deferrable, run_directories):
    """After them comes the try of Airflow, which fails here, as there are no retries."""
    kill(*[preempt(on_slurm)] * 2)
    rules = {"SlurmPreempted": {"tries": 1}}
    slurm = {"partition": "scavenge", "nodelist": "n3", "exclusive": True}
    result = run_job(deferrable=deferrable, slurm=slurm, retry_with=rules, **killed(2))
    assert result.states["job"] == "failed"
    assert len(run_directories()) == 2


def test_limit_is_requested_once_and_then_fails_without_retry(
    killed, kill, on_slurm, run_job, deferrable, logged_text, run_directories
):
    """Of five retries, one is used: from 0.25 GB to the limit of 0.3 GB."""
    kill(on_slurm.out_of_memory, on_slurm.out_of_memory)
    rules = {"SlurmOutOfMemory": {"mem_gb": 2.0}, "max": {"mem_gb": 0.3}}
    many = {"retries": 5, "retry_delay": timedelta(0)}
    result = run_job(deferrable=deferrable, slurm={"mem_gb": 0.25}, retry_with=rules, **many, **killed(3))
    assert result.states["job"] == "failed"
    assert [asked(on_slurm, each)["MinMemoryNode"] for each in run_directories()] == ["256M", "307M"]
    assert "no retry: mem_gb would exceed max 0.2998046875" in logged_text()


def test_factor_without_amount_raises_at_parse_time(run_job, module):
    """The message names the fix."""
    rules = {"SlurmOutOfMemory": {"mem_gb": 2.0}}
    with pytest.raises(
        InvalidTask, match=r"task 'job': retry_with: .*mem_gb cannot be multiplied.*add mem_gb to slurm"
    ):
        run_job(retry_with=rules, **module("pass"))


def test_factor_without_amount_in_connection_fails_before_submission(
    run_job, module, on_slurm, connection, logged_text, run_directories
):
    """The connection can request it, so that is known only now."""
    rules = {"SlurmOutOfMemory": {"mem_gb": 2.0}}
    assert run_job(retry_with=rules, **AGAIN, **connection(workdir="/"), **module("pass")).states["job"] == "failed"
    assert "mem_gb cannot be multiplied" in logged_text()
    assert run_directories() == []


def test_rules_of_the_connection_apply_to_requested_amounts(
    killed, kill, on_slurm, run_job, connection, run_directories
):
    """A task that does not request the time is not rejected for the rule about it."""
    kill(on_slurm.out_of_memory)
    rules = {"SlurmOutOfMemory": {"mem_gb": 2.0}, "SlurmTimeout": {"timeout_min": 2}}
    of_connection = connection(retry_with=rules, slurm={"mem": "250M"})
    assert run_job(**AGAIN, **of_connection, **killed()).results["job"] == "better now"
    assert asked(on_slurm, run_directories()[1])["MinMemoryNode"] == "500M"


def test_retry_with_has_no_effect_without_slurm(module, no_slurm, run_job, run_directories, tmp_path):
    """One DAG file runs everywhere."""
    source = f"""
        import os, sys
        mark = {str(tmp_path / "tried")!r}
        if not os.path.exists(mark):
            open(mark, "w").close()
            sys.exit(4)
        print("better now")
    """
    rules = {"SlurmJobFailed": {"mem_gb": 2.0}, "max": {"mem_gb": 1}}
    result = run_job(slurm={"mem_gb": 1}, retry_with=rules, **AGAIN, **module(source))
    assert result.results["job"] == "better now"
    assert not (run_directories()[1] / "asked.json").exists()


def test_execution_timeout_covers_extra_tries(killed, kill, on_slurm, run_job, run_directories):
    """The second job does not get the time of the first one again."""
    kill(preempt(on_slurm))
    slurm = {"partition": "scavenge", "nodelist": "n3", "exclusive": True}
    rules, limit = {"SlurmPreempted": {"tries": 1}}, timedelta(seconds=25)
    result = run_job(slurm=slurm, retry_with=rules, execution_timeout=limit, **killed(2))
    assert result.states["job"] == "failed"
    first, second = (json.loads((each / "job.json").read_text()) for each in run_directories())
    on_slurm.wait_for(second["id"], "CANCELLED")
    assert time.time() - first["submitted"] < 45


def test_deferral_ends_with_the_execution_timeout_of_the_try(module, on_slurm, defaults):
    """Airflow begins with each deferral at zero; a try with an earlier deferral has less time left."""
    instance = SimpleNamespace(dag_id="deferred", run_id="run", task_id="job", map_index=-1, try_number=1, max_tries=0)
    instance.xcom_push = lambda key, value: None
    instance.start_date = datetime.now(UTC) - timedelta(seconds=100)
    with DAG("deferred", schedule=None) as dag:
        limit = timedelta(seconds=300)
        job = module("import time; time.sleep(600)")
        operator = SlurmModuleOperator(task_id="job", deferrable=True, execution_timeout=limit, **defaults, **job)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute({"ti": instance, "dag": dag, "dag_run": SimpleNamespace(clear_number=0)})
    assert 150 < deferred.value.timeout.total_seconds() <= 200


def preempt(on_slurm):
    """Return a function that preempts the job on the third node."""
    return lambda _: on_slurm.submit("true", "--exclusive", "--nodelist=n3")
