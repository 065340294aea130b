"""Record of requested and used resources in the job directory, for each end of a job, and from accounting."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.reports.job_usages import accounted_jobs, jobs_below
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_records import ACCOUNTED, MEASURED
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.job_records import JobUsage
    from tests.slurm.conftest import Followed, Jobs
    from tests.slurm_cluster.cluster import SlurmCluster

HOLDS = "held = bytearray(50_000_000); wait_for('go')"
SETTINGS = {"slurm": {"mem_gb": 0.25, "cpus_per_task": 1, "timeout_min": 5}}
REQUEST = {"mem_gb": 0.25, "cpus": 1.0, "timeout_min": 5.0}


def record_of(followed: Followed) -> JobUsage:
    usage = followed.directory.read_usage()
    assert usage is not None
    return usage


def finish(followed: Followed) -> None:
    """Let the module end."""
    Path(followed.directory.path, "go").touch()


def measured(followed: Followed) -> None:
    """Wait until the job script has measured the memory that a module holds."""
    samples = Path(followed.directory.usage_samples)
    wait_until(
        lambda: samples.exists() and any(int(line.split()[0]) > 49_000 for line in samples.read_text().splitlines()),
        f"samples of {followed.job}",
    )


def test_record_of_running_job_has_its_request_only(jobs: Jobs) -> None:
    job = jobs.start(HOLDS, **SETTINGS)
    job.expect_start()
    usage = record_of(job)
    assert (usage.exit_class, usage.requested, usage.used, usage.task) == ("", REQUEST, {}, "task_1")
    finish(job)
    job.succeeds()


def test_record_of_success_has_usage_wait_and_node(any_jobs: Jobs) -> None:
    job = any_jobs.start(HOLDS, **SETTINGS)
    measured(job)
    finish(job)
    job.succeeds()
    usage = record_of(job)
    assert (usage.exit_class, usage.job_id, usage.name, usage.source) == ("success", job.id, job.job.ref.name, MEASURED)
    assert usage.node in {"n1", "n2", "n3"}
    assert usage.requested == REQUEST
    assert usage.started is not None
    assert usage.ended is not None
    assert usage.used["elapsed"] == pytest.approx(usage.ended - usage.started, abs=0.01)
    assert usage.waited == pytest.approx(usage.started - job.job.submitted, abs=0.01)
    assert usage.used["max_rss"] > 50_000_000
    assert usage.used["cpus"] == 1
    assert os.stat(os.path.join(job.directory.path, "usage.json")).st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("end", "kind", "exit_class"),
    [
        (lambda slurm, job: finish(job), errors.SlurmJobFailed, "job_failed"),
        (lambda slurm, job: slurm.command("scancel", job.id), errors.SlurmCancelled, "cancelled"),
        (lambda slurm, job: slurm.time_out(job.id), errors.SlurmTimeout, "timeout"),
        (lambda slurm, job: slurm.out_of_memory(job.id), errors.SlurmOutOfMemory, "out_of_memory"),
    ],
    ids=["failed", "cancelled", "timeout", "out of memory"],
)
def test_record_of_failure_has_its_class_and_usage(jobs: Jobs, end, kind, exit_class) -> None:
    job = jobs.start(f"{HOLDS}; sys.exit(3)", **SETTINGS)
    measured(job)
    end(jobs.slurm, job)
    job.fails(kind)
    usage = record_of(job)
    assert (usage.exit_class, usage.requested, usage.job_id) == (exit_class, REQUEST, job.id)
    assert usage.node
    assert usage.used["max_rss"] > 50_000_000
    assert usage.used["elapsed"] > 0


def test_record_of_killed_script_has_samples_and_time_until_its_end_was_seen(jobs: Jobs) -> None:
    """Its node is lost, with the job script on it."""
    job = jobs.start(HOLDS, **SETTINGS)
    measured(job)
    start = job.directory.read_start()
    assert start is not None
    jobs.slurm.node_down(start.node)
    job.fails(errors.SlurmNodeFailure)
    usage = record_of(job)
    assert (usage.exit_class, usage.node) == ("node_failure", start.node)
    assert usage.used["max_rss"] > 50_000_000
    assert 0 < usage.used["elapsed"] <= time.time() - start.time


def test_record_of_job_that_never_started_has_its_wait(jobs: Jobs) -> None:
    job = jobs.start(HOLDS, slurm={**SETTINGS["slurm"], "additional_parameters": {"hold": True}})
    jobs.slurm.command("scancel", job.id)
    job.fails(errors.SlurmCancelled, runs=0)
    usage = record_of(job)
    assert (usage.exit_class, usage.started, usage.used) == ("cancelled", None, {})
    assert usage.waited is not None


def test_record_of_local_job(tmp_path: Path, jobs: Jobs) -> None:
    job = jobs.start(HOLDS, cluster="local", **SETTINGS)
    job.slurm = None
    measured(job)
    finish(job)
    job.succeeds()
    usage = record_of(job)
    assert (usage.exit_class, usage.node, usage.requested) == ("success", os.uname().nodename, REQUEST)
    assert usage.used["max_rss"] > 50_000_000


def test_jobs_below_run_dir_include_those_without_a_collector(jobs: Jobs) -> None:
    """Airflow does not wait for a job that a user has cancelled, nor for one with wait_for_completion=False."""
    job = jobs.start(HOLDS, **SETTINGS)
    measured(job)
    job.run.release()
    wait_until(lambda: job.error is not None, "the end of its monitor")
    jobs.slurm.command("scancel", job.id)
    wait_until(lambda: job.directory.read_exit() is not None, "its exit record")
    (found,), _ = accounted_jobs(jobs_below(str(jobs.folder)))
    assert (found.task, found.usage.exit_class, found.usage.requested) == ("task_1", "cancelled", REQUEST)
    assert found.usage.used["max_rss"] > 50_000_000


def test_jobs_below_run_dir_leave_out_running_jobs(jobs: Jobs) -> None:
    job = jobs.start(HOLDS, **SETTINGS)
    job.expect_start()
    assert accounted_jobs(jobs_below(str(jobs.folder))) == ([], "")
    finish(job)
    job.succeeds()


def test_accounting_is_queried_once_and_saved(
    slurm_accounting: SlurmCluster, talk_to: Callable[..., Any], tmp_path: Path, jobs_on: Callable[..., Jobs]
) -> None:
    slurm = talk_to(slurm_accounting)
    jobs = jobs_on(slurm)
    started = [jobs.start(HOLDS, slurm={"mem_gb": 0.25, "nodes": nodes}) for nodes in (1, 2)]
    for job in started:
        job.expect_start()
        elapsed = partial(slurm.command, "squeue", "-h", "-o", "%M", "-j", job.id)
        slurm.until(lambda elapsed=elapsed: elapsed().strip() != "0:00", "the first second in accounting")
        finish(job)
    for job in started:
        job.succeeds()
    rows = "-nPX", "--format=State,JobName", "-j", ",".join(job.id for job in started)
    names = sorted(f"COMPLETED|{job.job.ref.name}" for job in started)
    slurm.until(lambda: sorted(slurm.command("sacct", *rows).split()) == names, "the jobs in accounting")
    slurm.put_in_front("sacct")

    first, reason = accounted_jobs(jobs_below(str(jobs.folder)))
    again, _ = accounted_jobs(jobs_below(str(jobs.folder)))

    assert (reason, slurm.counted("sacct")) == ("", 1)
    assert again == first
    for job in started:
        usage = record_of(job)
        shown = slurm.command("sacct", "-nPX", "--format=ElapsedRaw,AllocCPUS,TimelimitRaw", "-j", job.id).split("|")
        assert [usage.used["elapsed"], usage.used["cpus"], usage.requested["timeout_min"]] == [*map(float, shown)]
        assert usage.source == ACCOUNTED


def test_accounting_that_does_not_answer_leaves_the_measured_usage(
    slurm_accounting: SlurmCluster, talk_to: Callable[..., Any], jobs_on: Callable[..., Jobs]
) -> None:
    slurm = talk_to(slurm_accounting)
    jobs = jobs_on(slurm)
    job = jobs.start("pass")
    job.succeeds()
    slurm.put_in_front("sacct", "echo trouble >&2; exit 1")
    (found,), reason = accounted_jobs(jobs_below(str(jobs.folder)))
    assert "accounting does not answer" in reason
    assert found.usage.used["elapsed"] == record_of(job).used["elapsed"]
    assert record_of(job).source == MEASURED


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 2, "name": "n"}'])
def test_damaged_record_counts_as_missing(tmp_path: Path, text: str) -> None:
    directory = JobDirectory(str(tmp_path / "1"))
    directory.create()
    Path(directory.path, "usage.json").write_text(text)
    assert directory.read_usage() is None
    assert jobs_below(str(tmp_path)) == []


def test_record_with_values_that_are_no_numbers_omits_them(tmp_path: Path) -> None:
    directory = JobDirectory(str(tmp_path / "1"))
    directory.create()
    stored = json.loads((Path(__file__).parents[1] / "records" / "1" / "usage.json").read_text())
    stored |= {"used": {"elapsed": "1", "cpu": True, "max_rss": 5}, "waited": "x", "requested": {"cpus": None}}
    Path(directory.path, "usage.json").write_text(json.dumps(stored))
    usage = directory.read_usage()
    assert usage is not None
    assert (usage.used, usage.waited, usage.requested) == ({"max_rss": 5.0}, None, {})


def test_record_with_amounts_that_cannot_be_omits_them(tmp_path: Path) -> None:
    """A damaged record does not spoil the report on all others."""
    directory = JobDirectory(str(tmp_path / "1"))
    directory.create()
    stored = json.loads((Path(__file__).parents[1] / "records" / "1" / "usage.json").read_text())
    stored |= {"requested": {"cpus": 8, "tasks": 0, "nodes": -1}, "used": {"elapsed": -5, "cpu": 0}}
    Path(directory.path, "usage.json").write_text(json.dumps(stored))
    usage = directory.read_usage()
    assert usage is not None
    assert (usage.requested, usage.used) == ({"cpus": 8.0}, {"cpu": 0.0})
