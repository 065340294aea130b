"""Preemption and other ends by Slurm that a module's exit code does not show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.slurm.backend import JobRef
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_script import ArrayScript
from tests.slurm.conftest import until
from tests.slurm.script_jobs import ScriptJob
from tests.slurm.test_monitor import freeze, thaw
from tests.slurm.test_signals import counts
from tests.slurm.test_unsure_records import doubtful

GRACED = {"partition": "graced", "nodelist": "n3", "exclusive": True}
RUNS_A_STEP = """
    import subprocess
    step = "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); " \
        "print('listens', flush=True); signal.pause()"
    subprocess.run(["srun", "--unbuffered", sys.executable, "-c", step], check=True, stderr={stderr})
    say("42")
"""


def preempt(jobs, job) -> None:
    """Have a job make way, and wait until its GraceTime has begun."""
    jobs.slurm.submit("true", "--exclusive", "--nodelist=n3")
    query = ["squeue", "-h", "-t", "all", "-j", job.id, "-O", "PreemptTime"]
    until(lambda: jobs.slurm.command(*query) != "N/A", lambda: "the preemption")


@pytest.mark.parametrize("stderr", ["None", "subprocess.DEVNULL"])
def test_grace_time_preemption_of_module_step_is_not_success(tracked_jobs, stderr) -> None:
    """The step saves and exits with 0, and so does the module; the announcement of slurmstepd may be in no log."""
    job = tracked_jobs.start(RUNS_A_STEP.format(stderr=stderr), slurm=GRACED)
    job.expect_line("listens")
    until(Path(job.directory.path, "steps").exists, lambda: "the watcher to see srun")

    preempt(tracked_jobs, job)

    job.fails(errors.SlurmPreempted)
    record = job.directory.read_exit()
    assert (record.phase, record.exit_code, record.asked) == ("teardown", 0, "TERM")


@pytest.mark.parametrize("more", [{"setup": ["exec 2>/dev/null"]}, {"setup": ["export SLURM_STDERRMODE=/dev/null"]}])
def test_grace_time_preemption_without_announcement_is_not_success(jobs, more) -> None:
    """Slurm shows when the preemption has begun."""
    job = jobs.start(counts(children=0), slurm={**GRACED, "use_srun": True, **more})
    job.expect_line("listens")

    preempt(jobs, job)

    job.end()
    assert type(job.error) is errors.SlurmPreempted


@pytest.mark.parametrize("is_sure", [True, False])
def test_grace_time_preemption_outweighs_unsure_record_only(jobs, is_sure) -> None:
    """A module without a step gets no signal before the GraceTime is over, and may end well within it."""
    job = jobs.start("wait_for('enough'); say(42)", slurm=GRACED)
    job.expect_start()
    preempt(jobs, job)
    freeze(job)
    job.create_file("enough")
    until(lambda: JobDirectory(job.directory.path).read_exit(), lambda: "a record")
    if not is_sure:
        doubtful(job)
    thaw(job)

    if is_sure:
        assert job.succeeds() == "42"
    else:
        job.fails(errors.SlurmPreempted)


def test_step_of_the_module_leaves_success_sure(jobs) -> None:
    """Slurm has answered that no preemption had begun."""
    source = "import subprocess\nsubprocess.run(['srun', 'sleep', '1'], check=True)\nwait_for('steps')\nsay('42')"

    job = jobs.start(source)

    assert job.succeeds() == "42"
    assert job.directory.read_exit().is_sure_success


def test_scancel_of_array_element_is_not_success(cluster_jobs, slurm) -> None:
    """The record of an element shows that it was asked to end, for either of its two ids in Slurm's announcement."""
    array, directory = cluster_jobs.directory("array"), cluster_jobs.directory()
    source = """
        import os, signal
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        print("listens", flush=True)
        signal.pause()
    """
    script = cluster_jobs.script(source, in_array=True)
    script.write(directory)
    os.symlink(directory.path, Path(array.path, "7"))
    ArrayScript(script.name, [7], {}, requeue=False).write(array)
    job_id = f"{cluster_jobs.cluster.submit(array, script.name).id}_7"
    job = ScriptJob(JobRef(job_id, script.name, directory.path), directory, cluster_jobs.cluster)
    job.expect_output("listens")

    slurm.command("scancel", job_id)

    record = job.record()
    assert (record.exit_code, record.asked) == (0, "TERM")
    assert job.directory.read_claim() == job_id


def test_announcement_of_an_earlier_run_does_not_count(tracked_jobs) -> None:
    """stderr.log has the end that slurmstepd announced before the job was requeued; the second run succeeds."""
    source = """
        if "SLURM_RESTART_COUNT" not in os.environ:
            wait_for("the end of days")
        say("42")
    """
    job = tracked_jobs.start(source, requeue=True)
    job.expect_start()

    tracked_jobs.slurm.requeue(job.id)

    job.end()
    assert (job.value, job.error) == ("42", None)
    assert "CANCELLED AT" in job.stderr


def test_announcement_counts_if_script_ignores_sigterm(tracked_jobs) -> None:
    """The script ignores SIGTERM, as if it came late; slurmstepd has announced the end, behind an unfinished line."""
    source = """
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        print("50 %", end="", file=sys.stderr, flush=True)
        say("listens")
        wait_for("the end of days")
    """
    job = tracked_jobs.start(source, slurm={"setup": ["trap '' TERM"]})
    job.expect_line("listens")

    tracked_jobs.slurm.command("scancel", job.id)

    job.fails(errors.SlurmCancelled)
    record = job.directory.read_exit()
    assert (record.phase, record.exit_code, record.asked) == ("teardown", 0, "TERM")


def test_announcement_of_another_job_does_not_count(jobs) -> None:
    """A module may print the log of a job that was cancelled."""
    job = jobs.start("""
        other = int(os.environ["SLURM_JOB_ID"]) - 1
        say(f"slurmstepd: error: *** JOB {other} ON n1 CANCELLED AT 2026-01-01T00:00:00 ***", sys.stderr)
        say(f"slurmstepd: error: *** STEP {os.environ['SLURM_JOB_ID']}.0 ON n1 CANCELLED AT 2026 ***", sys.stderr)
        say("42")
    """)

    assert job.succeeds() == "42"


@pytest.mark.parametrize(
    "text", ["Slurm job {} has expired", "Unable to create step for job {}: Job/step already completing or completed"]
)
def test_srun_after_job_end_is_not_module_failure(jobs, text) -> None:
    """Slurm ends a job first, and announces that to its nodes later; an srun that begins in between fails."""
    source = f"""
        say("srun: error: {text}".format(os.environ["SLURM_JOB_ID"]), sys.stderr)
        sys.exit(1)
    """
    job = jobs.start(source, slurm={"use_srun": True})

    job.end()

    assert job.directory.read_exit().asked == "TERM"
