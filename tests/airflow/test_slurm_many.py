"""Many concurrent jobs are polled with as few queries as one."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.serialization import slurm_to_data
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.job import Job
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_spec import JobSpec
from airflow_provider_sewer.slurm.log_tailer import JobLogs

from .slurm_cases import Case

INSTANCES, RUN = 1000, 100
POLL = 1.0
# As the interpreter of the jobs: it starts in no time, so that so many can run here.
QUICK = """#!/bin/sh
id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
echo "$id one"
echo "$id two"
"""


def test_mapped_task_submits_one_job_per_instance(stage, tmp_path):
    """Deferred all at once; each has its own job, its own result and its own log, and one squeue serves them all."""
    stage.slurm.put_in_front("squeue")
    first = Case(stage, tmp_path / "ten", "maps", 0)
    cases = [first, *(first.place(index) for index in range(1, 10))]
    for case in cases:
        case.is_deferred()
    began, before = time.monotonic(), stage.slurm.counted("squeue")
    first.until(lambda: time.monotonic() - began > 8, "some seconds with ten deferred tasks")
    queries, seconds = stage.slurm.counted("squeue") - before, time.monotonic() - began
    first.enough()
    for case in cases:
        case.ends("success")
        case.log_is_complete()
    first.is_over()
    assert {case.result()["job"] for case in cases} == {job.id for job in first.jobs()}
    assert [job.state for job in first.jobs()] == ["COMPLETED"] * 10
    # Each interval of the DAG is half a second at least.
    assert 1 <= queries <= seconds / 0.5 + 3


def test_mapped_task_with_array_submits_once(stage, tmp_path):
    """With fewer workers than instances: those that wait for others hold none. Each is a job of its own."""
    for name in ("sbatch", "sacct"):
        stage.slurm.put_in_front(name)
    first = Case(stage, tmp_path / "shared", "shares", 0)
    cases = [first, *(first.place(index) for index in range(1, 10))]
    first.enough()
    for case in cases:
        case.ends("success")
        case.log_is_complete()
    first.is_over()
    assert (stage.slurm.counted("sbatch"), stage.slurm.counted("sacct")) == (1, 0)
    ids = [case.airflow.xcom(*case.key, "slurm_job_id", map_index=case.map_index) for case in cases]
    assert ids == [f"{ids[0].partition('_')[0]}_{index}" for index in range(10)]
    assert {case.result()["job"] for case in cases} == {job.id for job in first.jobs()}


def test_thousand_deferred_instances_use_one_sbatch_and_one_squeue(make_slurm, tmp_path, monkeypatch):
    """All triggers run in one event loop, as in a triggerer; Airflow would need minutes to defer so many here."""
    from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

    slurm = make_slurm(nodes=3, cpus=4)
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    for name in ("sbatch", "squeue"):
        slurm.put_in_front(name)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nothing is killed here
    python = tmp_path / "quick"
    python.write_text(QUICK)
    python.chmod(0o755)
    settings = SlurmSettings.checked(
        slurm={"additional_parameters": {"hold": True}},
        run_dir=str(tmp_path / "runs"),
        cluster="slurm",
        poll_interval=POLL,
        max_poll_interval=2 * POLL,
        array=True,
    ).with_fallback(DEFAULTS)
    task = Task("any", "any").with_settings(ExecutionSettings.checked(python=str(python)))
    lines = Counter()
    monkeypatch.setattr("airflow_provider_sewer.triggers.slurm.log_output", lambda _, pieces: lines.update(pieces))
    arguments = slurm_to_data(settings._replace(slurm={}))
    triggers = []
    for index in range(INSTANCES):
        planned = JobSpec(TaskInstance("many", "run", "task", index, "0"), task, settings, {}, 5.0, expected=INSTANCES)
        waiting = JobRunner(planned, lambda *_: None, print).submit_or_reattach()
        triggers.append(SlurmJobTrigger(waiting.to_dict(), "any", arguments))
        triggers[-1].trigger_id = index

    async def fired(trigger):
        return [event.payload async for event in trigger.run()]

    def are_submitted():
        return all(trigger.serialize()[1]["job"]["id"] for trigger in triggers)

    async def run_all():
        tasks = [asyncio.create_task(fired(trigger)) for trigger in triggers]
        await asyncio.to_thread(slurm.until, are_submitted, "the array")
        await asyncio.sleep(3 * POLL)
        array = triggers[0].serialize()[1]["job"]["id"].partition("_")[0]
        await asyncio.to_thread(slurm.release, f"{array}_[0-{RUN - 1}]")
        payloads = await asyncio.gather(*tasks[:RUN])
        for task in tasks[RUN:]:
            task.cancel()
        await asyncio.gather(*tasks[RUN:], return_exceptions=True)
        return payloads

    began = time.monotonic()
    payloads = asyncio.run(asyncio.wait_for(run_all(), 300))
    seconds, queries = time.monotonic() - began, slurm.counted("squeue")
    print(f"{RUN} of {INSTANCES} jobs in {seconds:.1f} s, {queries} queries")
    jobs = [Job.from_dict(events[0]["job"]) for events in payloads]
    for job in jobs:
        JobLogs(job.directory, lambda _, pieces: lines.update(pieces)).finish()  # the rest, as the workers do
    assert [len(events) for events in payloads] == [1] * RUN
    assert {events[0]["ending"]["error"] for events in payloads} == {None}
    assert slurm.counted("sbatch") == 1
    waiting = slurm.command("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i").split()
    assert len(waiting) == INSTANCES - RUN
    assert lines == Counter(f"{job.ref.id} {text}\n" for job in jobs for text in ("one", "two"))
    assert 3 <= queries <= seconds / POLL + 4  # its name is looked up before the submission
