"""Usage of a job: its script measures it on the node, and no query is sent to accounting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_usage import read_usage
from tests.slurm.script_jobs import WAIT, wait_until

if TYPE_CHECKING:
    from tests.slurm.script_jobs import ScriptJob, ScriptJobs
    from tests.slurm_cluster.cluster import SlurmCluster

MB = 1_000_000
# Three processes with 50 MB each, as long as the module waits.
TREE = f"""
    import os
    os.fork() and os.fork()
    heap = b"x" * {50 * MB}
{WAIT}
"""
# Computes until a file exists.
COMPUTES = WAIT.replace("time.sleep(0.05)", "sum(range(100_000))")


def samples(job: ScriptJob) -> list[list[int]]:
    """Return the samples of a job so far: KiB of memory, and ticks of CPU time."""
    try:
        text = Path(job.directory.usage_samples).read_text(encoding="ascii")
    except FileNotFoundError:
        return []
    return [[int(word) for word in line.split()] for line in text.splitlines()]


def measured(job: ScriptJob, field: int, at_least: float) -> None:
    """Wait until a sample is as high as this."""
    wait_until(lambda: any(sample[field] >= at_least for sample in samples(job)), f"{at_least} in the samples of {job}")


@pytest.fixture(params=["cluster_jobs", "local_jobs"])
def jobs(request: pytest.FixtureRequest) -> ScriptJobs:
    """Let a test run twice: with a Slurm job, and with one of this machine."""
    jobs: ScriptJobs = request.getfixturevalue(request.param)
    return jobs


def test_max_rss_sums_all_processes_of_job(jobs: ScriptJobs) -> None:
    """Three processes hold 50 MB each at the same time, and their interpreters some more."""
    job = jobs.start(TREE)
    measured(job, 0, 150 * MB / 1024)
    job.create_file("go")
    assert job.record().is_success
    assert 150 * MB < read_usage(job.directory)["max_rss"] < 300 * MB


@pytest.mark.parametrize("use_srun", [False, True], ids=["script", "srun"])
def test_cpu_includes_srun_job_step(cluster_jobs: ScriptJobs, use_srun: bool) -> None:
    """With `use_srun`, slurmstepd starts the module, so that the times of the script do not include it."""
    job = cluster_jobs.start(COMPUTES, resources={"use_srun": use_srun})
    measured(job, 1, 100)
    job.create_file("go")
    assert job.record().is_success
    usage = read_usage(job.directory)
    assert 1.0 <= usage["cpu"] <= usage["elapsed"] + 0.5
    assert usage["cpus"] == 1


def test_usage_of_several_nodes_has_only_elapsed_and_cpus(cluster_jobs: ScriptJobs) -> None:
    """The script sees the processes of one node only, and a part of the usage would pass for all of it."""
    job = cluster_jobs.start("print(1)", resources={"nodes": 2})
    assert job.record().is_success
    assert list(read_usage(job.directory)) == ["elapsed", "cpus"]


def test_usage_of_requeued_job_covers_last_run(cluster_jobs: ScriptJobs, slurm: SlurmCluster) -> None:
    """Samples of the run before the requeue are removed when the job begins again."""
    job = cluster_jobs.start(WAIT, requeue=True)
    measured(job, 0, 1)
    with Path(job.directory.usage_samples).open("a") as file:
        file.write("123456789 123456789\n")
    slurm.command("scontrol", "requeue", job.ref.id)
    wait_until(lambda: (start := job.directory.read_start()) and start.restart == 1, "the second run", 180)
    measured(job, 0, 1)
    job.create_file("go")
    assert job.record().is_success
    usage = read_usage(job.directory)
    assert usage["max_rss"] < 300 * MB
    assert usage["cpu"] < usage["elapsed"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("70", None),
        ("50 3\n70", 50 * 1024),
        ("50 3\n70 1\n", 70 * 1024),
        ("x y\n", None),
        ("-50 3\n", None),
        ("9" * 400 + " 1\n", None),
        ("9" * 30 + " 1\n", None),
    ],
)
def test_usage_of_damaged_samples_omits_max_rss(
    local_jobs: ScriptJobs, text: str | None, expected: float | None
) -> None:
    """A kill may cut off the last line, and a full disk any of them."""
    job = local_jobs.start("print(1)")
    assert job.record().is_success
    samples_file = Path(job.directory.usage_samples)
    samples_file.unlink(missing_ok=True)
    if text is not None:
        samples_file.write_text(text)
    usage = read_usage(job.directory)
    assert usage.get("max_rss") == expected
    assert usage["elapsed"] > 0
    assert "cpu" in usage


def test_usage_without_exit_record_is_empty(tmp_path: Path) -> None:
    """Nothing is known of a job whose script has not come to its end."""
    assert read_usage(JobDirectory(str(tmp_path))) == {}
