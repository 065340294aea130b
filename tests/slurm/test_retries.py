"""Requests of consecutive attempts at one task, by ``retry_with``: records, kills, clears, arrays, a memory limit."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.errors import (
    SlurmNodeFailure,
    SlurmOutOfMemory,
    SlurmRequestLimit,
    SlurmTimeout,
    UnreadableRecord,
)
from airflow_provider_sewer.core.retry_requests import Failure
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from tests.slurm.test_arrays import elements, instances
from tests.slurm.test_job_result import cgroup_cluster
from tests.slurm.worker import folders, seen

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.job_spec import JobSpec
    from tests.slurm.conftest import Followed
    from tests.slurm_cluster.cluster import SlurmCluster

DOUBLED = {"retry_with": {"SlurmOutOfMemory": {"mem_gb": 2.0}, "SlurmTimeout": {"timeout_min": 2}}}
ASKS = {**DOUBLED, "slurm": {"mem_gb": 0.125, "timeout_min": 5}}
WAITS = 'say("started"); wait_for("go")'


def cleared(planned: JobSpec) -> JobSpec:
    """Return the same after a user has cleared the task."""
    return planned._replace(instance=planned.instance._replace(clears="1"))


def asked(slurm: SlurmCluster, job_id: str) -> tuple[str, str]:
    """Return the memory and the time limit of a job, by Slurm's own account."""
    text = slurm.command("scontrol", "show", "job", "-o", job_id)
    fields = dict(word.split("=", 1) for word in text.split() if "=" in word)
    return fields["MinMemoryNode"], fields["TimeLimit"]


def failed(run: Followed, error: type[Exception], end: Any) -> str:
    """Let a job end in a way as soon as it has started, and return its id."""
    run.expect_line("started")
    end(run.id)
    run._thread.join(120)
    assert type(run.error) is error, run.error
    return run.id


def test_failures_of_two_kinds_accumulate(plan, jobs, slurm):
    """Memory is doubled after the first, time after the second."""
    planned = plan(WAITS, **ASKS)
    first = failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    second = failed(jobs.follow(planned), SlurmTimeout, slurm.time_out)
    third = failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    assert [asked(slurm, job)[0] for job in (first, second, third)] == ["128M", "256M", "256M"]
    assert asked(slurm, third)[1] == "00:10:00"


def test_clear_starts_with_the_request_of_the_task(plan, jobs, slurm):
    """The series of tries before it does not count."""
    planned = plan(WAITS, **ASKS)
    failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    third = failed(jobs.follow(cleared(planned)), SlurmOutOfMemory, slurm.out_of_memory)
    assert asked(slurm, third)[0] == "128M"
    fourth = failed(jobs.follow(cleared(planned)), SlurmOutOfMemory, slurm.out_of_memory)
    assert asked(slurm, fourth)[0] == "256M"


def test_failure_that_no_process_has_seen_counts_once(plan, jobs, slurm, worker):
    """The worker is killed, the job runs out of memory, and the next try finds it ended."""
    planned = plan(WAITS, **ASKS)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    slurm.until(folders(planned)[0].read_start, "the start of the job")
    first.kill()
    slurm.out_of_memory(job_id)
    slurm.wait_for(job_id, "OUT_OF_MEMORY")
    second = failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    assert asked(slurm, second)[0] == "256M"
    assert seen(slurm, planned) == [job_id, second]


@pytest.mark.parametrize("moment", ["failure.json", "cancelled"])
def test_worker_killed_while_it_records_the_failure(plan, jobs, slurm, worker, moment):
    """After the first of its records or before the last: the growth is neither lost nor doubled."""
    planned = plan(WAITS, **ASKS)
    first = failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    directory = folders(planned)[0]
    os.unlink(os.path.join(directory.path, "ended.json"))
    if moment == "failure.json":
        os.unlink(os.path.join(directory.path, "cancelled"))
    second = failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    assert asked(slurm, second)[0] == "256M"
    assert seen(slurm, planned) == [first, second]


def test_worker_killed_before_its_submission_keeps_the_request(plan, jobs, slurm, worker):
    """The second attempt has a record of its request and no job: the third one asks for the same."""
    planned = plan(WAITS, **ASKS)
    failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    slurm.put_in_front("squeue", "sleep 30")
    second = worker(planned)
    slurm.until(lambda: slurm.counted("squeue"), "the look-up before the submission")
    second.kill()
    slurm.take_away()
    assert folders(planned)[1].read_request().asked["mem_gb"] == 0.25
    third = failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    assert asked(slurm, third)[0] == "256M"
    assert len(folders(planned)) == 3


def test_limit_raises_before_another_submission(plan, jobs, slurm, worker):
    """Also where the worker that saw the failure could not finish."""
    rules = {"SlurmOutOfMemory": {"mem_gb": 2.0}, "max": {"mem_gb": 0.125}}
    planned = plan(WAITS, slurm={"mem_gb": 0.125}, retry_with=rules)
    first = failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    again = jobs.follow(planned)
    again._thread.join(60)
    assert type(again.error) is SlurmRequestLimit
    assert "mem_gb would exceed max 0.125 (asked: 0.125, next: 0.25); raise max in retry_with" in str(again.error)
    assert seen(slurm, planned) == [first]


def test_extra_tries_are_counted_across_workers(plan, jobs, slurm):
    """The count is in the record, so a restarted worker does not begin at zero."""
    planned = plan(WAITS, retry_with={"SlurmNodeFailure": {"tries": 1}})
    run = jobs.follow(planned)
    run.expect_line("started")
    slurm.node_down(run.directory.read_start().node)
    run._thread.join(60)
    assert type(run.error) is SlurmNodeFailure
    assert run.run.has_extra_try(run.ending, run.error)
    second = run.run.submit_and_wait()
    assert second.directory.read_request().extra_tries == {"node_failure": 1}

    other = jobs.follow(planned)  # as after a kill of the worker
    assert other.id == second.ref.id
    other.expect_line("started")
    slurm.node_down(other.directory.read_start().node)
    other._thread.join(60)
    assert not other.run.has_extra_try(other.ending, other.error)


def test_retried_members_with_equal_requests_share_an_array(plan, jobs, slurm):
    """Two instances ran out of memory, one out of time: two arrays."""
    planned = instances(plan(WAITS, **ASKS), 3, array_wait=3.0)
    first = [jobs.follow(each) for each in planned]
    for run in first:
        run.expect_line("started")
    for run in first[:2]:
        slurm.out_of_memory(slurm.command("squeue", "-h", "-j", run.id, "-o", "%A"))
    slurm.time_out(first[2].id)
    for run in first:
        run._thread.join(120)
    second = [jobs.follow(each) for each in planned]
    for run in second:
        run.expect_line("started")
    arrays = [run.id.partition("_")[0] for run in second]
    assert arrays[0] == arrays[1] != arrays[2]
    assert [asked(slurm, run.id) for run in second] == [
        ("256M", "00:05:00"),
        ("256M", "00:05:00"),
        ("128M", "00:10:00"),
    ]
    for run in second:
        run.create_file("go")
    for run in second:
        run._thread.join(120)
        assert run.error is None
    assert len(elements(slurm, planned)) == 6


def test_kernel_ends_the_first_job_and_the_second_has_memory_enough(make_slurm, talk_to, tmp_path, jobs_on):
    """Under a real limit of memory: 60 MB are too few, 600 MB are enough."""
    slurm = talk_to(cgroup_cluster(make_slurm, tmp_path))
    jobs = jobs_on(slurm)
    rules = {"SlurmOutOfMemory": {"mem_gb": 10}, "max": {"mem_gb": 1}}
    planned = jobs.plan("held = b'x' * (200 << 20); say('done')", slurm={"mem_gb": 0.06}, retry_with=rules)
    first = jobs.follow(planned)
    first._thread.join(120)
    assert type(first.error) is SlurmOutOfMemory
    second = jobs.follow(planned)
    assert second.succeeds() == "done"
    assert asked(slurm, second.id)[0] == "615M"


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("asked.json", {"own": {"mem_gb": "much"}, "asked": {}, "extra_tries": {}}),
        ("asked.json", {"own": {}, "asked": {"mem_gb": 1, "mem": "1G"}, "extra_tries": {}}),
        ("asked.json", {"own": {}, "asked": {}, "extra_tries": {"preempted": True}}),
        ("failure.json", {"error": "timeout", "node": "n1\n#SBATCH --mem=0"}),
    ],
)
def test_damaged_record_of_a_retry_raises(tmp_path, name, record):
    """The error has the path of the record, so that a user can look at it."""
    directory = JobDirectory(str(tmp_path / "1"))
    directory.create()
    path = Path(directory.path, name)
    path.write_text(json.dumps({"format": 1, **record}))
    with pytest.raises(UnreadableRecord, match=re.escape(str(path))):
        directory.read_request() if name == "asked.json" else directory.read_failure()


def test_records_of_a_retry(plan, jobs, slurm):
    """They name the request, the error and the node."""
    planned = plan(WAITS, **ASKS)
    failed(jobs.follow(planned), SlurmOutOfMemory, slurm.out_of_memory)
    directory = folders(planned)[0]
    assert directory.read_failure() == Failure("out_of_memory", directory.read_start().node)
    stored = json.loads((Path(directory.path) / "asked.json").read_text())
    assert stored["asked"] == stored["own"] == {"mem_gb": 0.125, "timeout_min": 5}
