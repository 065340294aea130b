"""Many jobs at once are watched as politely as one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.core.slurm import DEFAULTS, SlurmSettings
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.runners.slurm.attempts import TaskInstance
from airflow_provider_sewer.runners.slurm.begun import job_to_data
from airflow_provider_sewer.runners.slurm.logs import JobLogs
from airflow_provider_sewer.runners.slurm.module_job import ModuleJob
from airflow_provider_sewer.runners.slurm.run import JobRun

from .slurm_cases import Case

MANY = 300
POLL = 1.0
# As the interpreter of the jobs: it starts in no time, so that so many can run here.
QUICK = """#!/bin/sh
echo "$SLURM_JOB_ID one"
echo "$SLURM_JOB_ID two"
"""


def test_ten_mapped_tasks_are_ten_jobs(stage, tmp_path):
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


def test_three_hundred_deferred_jobs_take_no_more_queries_than_one(make_slurm, tmp_path, monkeypatch):
    """All triggers run in one event loop, as in a triggerer; Airflow would need minutes to defer so many here."""
    from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

    slurm = make_slurm(nodes=3, cpus=4)
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    python = tmp_path / "quick"
    python.write_text(QUICK)
    python.chmod(0o755)
    held = {"additional_parameters": {"hold": True}}
    settings = SlurmSettings.checked(
        slurm=held, run_dir=str(tmp_path / "runs"), cluster="slurm", poll_interval=POLL, max_poll_interval=2 * POLL
    ).over(DEFAULTS)
    where = Settings.checked(python=str(python))
    jobs = []
    for index in range(MANY):
        instance = TaskInstance("many", "run", "task", index, "0")
        planned = ModuleJob(instance, Task("any", "any").with_settings(where), settings, {}, 5.0)
        jobs.append(JobRun(planned, lambda *_: None, print).begin())
    lines = Counter()
    monkeypatch.setattr("airflow_provider_sewer.triggers.slurm.log_output", lambda _, pieces: lines.update(pieces))
    said = settings._replace(slurm={})._asdict()
    triggers = [SlurmJobTrigger(job_to_data(job), "any", said) for job in jobs]
    slurm.put_in_front("squeue")

    async def fired(trigger):
        return [event.payload async for event in trigger.run()]

    async def release():
        await asyncio.sleep(3 * POLL)
        await asyncio.to_thread(slurm.release, ",".join(job.ref.id for job in jobs))

    async def run_all():
        return (await asyncio.gather(*map(fired, triggers), release()))[:-1]

    began = time.monotonic()
    payloads = asyncio.run(asyncio.wait_for(run_all(), 300))
    seconds, queries = time.monotonic() - began, slurm.counted("squeue")
    for job in jobs:
        JobLogs(job.directory, lambda _, pieces: lines.update(pieces)).finish()  # the rest, as the workers do
    print(f"{MANY} jobs in {seconds:.1f} s, {queries} queries")
    assert [len(events) for events in payloads] == [1] * MANY
    assert {events[0]["ending"]["error"] for events in payloads} == {None}
    assert [job.state for job in slurm.jobs()] == ["COMPLETED"] * MANY
    assert lines == Counter(f"{job.ref.id} {what}\n" for job in jobs for what in ("one", "two"))
    assert 3 <= queries <= seconds / POLL + 2
