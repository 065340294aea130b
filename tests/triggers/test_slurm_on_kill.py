"""SlurmJobTrigger that Airflow cancels: it cancels the job if a user has requested that."""

from __future__ import annotations

import asyncio
import logging

import pytest

from airflow_provider_sewer.slurm.job import has_ended
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from tests.triggers.trigger_runs import PATIENCE, first_event, killed_as_airflow_does, recreated, wait_until


@pytest.mark.parametrize("state", ["failed", "success", ...])
@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_on_kill_user_request_cancels_the_job(on_slurm, submit, cluster, state, caplog, airflow_has_task_as):
    """A user has marked the task, or deleted its run."""
    caplog.set_level(logging.INFO)
    job, trigger = submit("import time; time.sleep(600)", cluster)
    wait_until(job.directory.read_start)
    airflow_has_task_as(state)
    asyncio.run(recreated(trigger).on_kill())
    assert f"Cancelled {job}" in caplog.text
    wait_until(lambda: has_ended(job))


@pytest.mark.parametrize("state", [None, "deferred", "scheduled", "queued", "running", OSError("no database")], ids=str)
def test_on_kill_bookkeeping_does_not_cancel_the_job(on_slurm, submit, state, caplog, airflow_has_task_as):
    """A triggerer that was paused finds its trigger assigned to another one."""
    caplog.set_level(logging.INFO)
    job, trigger = submit("import time; time.sleep(600)", "local")
    wait_until(job.directory.read_start)
    airflow_has_task_as(state)
    asyncio.run(recreated(trigger).on_kill())
    assert "Leaving" in caplog.text
    assert not job.directory.is_cancelled
    assert not has_ended(job)
    job.cluster.cancel([job.ref], timeout=PATIENCE)


@pytest.mark.parametrize("array", [True, False], ids=["array", "jobs"])
def test_on_kill_of_many_triggers_cancels_all_jobs(on_slurm, register, array, airflow_has_task_as):
    """Airflow cancels its on_kill calls before all jobs are cancelled."""
    airflow_has_task_as("failed")
    held = {"slurm": {"additional_parameters": {"hold": True}}}
    source = "import time; time.sleep(600)"
    triggers = [recreated(one) for one in register(source, 100 if array else 20, array=array, array_wait=0.0, **held)]

    async def until_there_and_killed():
        tasks = [asyncio.create_task(first_event(trigger)) for trigger in triggers]
        await asyncio.to_thread(wait_until, lambda: all(each.serialize()[1]["job"]["id"] for each in triggers))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for command in ("squeue", "scancel"):
            on_slurm.put_in_front(command, "sleep 0.5")
        await killed_as_airflow_does(triggers, 1.0)

    asyncio.run(until_there_and_killed())
    data = [trigger.serialize()[1]["job"] for trigger in triggers]
    assert all(JobDirectory(each["directory"]).is_cancelled for each in data)
    ids = ",".join(dict.fromkeys(each["id"].partition("_")[0] for each in data))
    on_slurm.until(lambda: not on_slurm.command("squeue", "-h", "-r", "-j", ids), "all of them to be gone")
    assert on_slurm.counted("scancel") <= 2  # those that have come first, and all others together


def test_on_kill_logs_the_cancellation(on_slurm, submit, caplog, airflow_has_task_as):
    """Also if Airflow stops waiting before the cancellation is confirmed."""
    airflow_has_task_as("failed")
    caplog.set_level(logging.INFO)
    job, trigger = submit("import time; time.sleep(600)")
    on_slurm.put_in_front("scancel", "sleep 3")
    asyncio.run(killed_as_airflow_does([recreated(trigger)], 1.0))
    assert f"Cancelling {job} in the background; Airflow has stopped waiting" in caplog.text
    on_slurm.wait_for(job.ref.id, "CANCELLED")


def test_on_kill_with_keep_job_does_not_cancel(on_slurm, submit):
    """With on_kill_action='keep_job' nothing is cancelled."""
    job, trigger = submit("import time; time.sleep(600)", on_kill_action="keep_job")
    on_slurm.wait_for(job.ref.id, "RUNNING")
    asyncio.run(recreated(trigger).on_kill())
    assert not job.directory.is_cancelled
    assert on_slurm.state(job.ref.id) == "RUNNING"
