"""The monitor concludes an end when there is one, and only then, with any source missing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.slurm import monitor
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from tests.slurm.conftest import until
from tests.slurm.worker import folders, let_go

# Waits in its first run, and ends well in its second.
TWO_RUNS = """
    if "SLURM_RESTART_COUNT" not in os.environ:
        wait_for("the end of days")
    say("42")
"""
ALONE = {"nodelist": "n3", "exclusive": True}


# --- Jobs that run once more


def test_poll_monitors_requeued_job_to_its_second_end(any_jobs) -> None:
    """Requeued by a user, for a stronger job, and for a lost node: each runs again and succeeds."""
    slurm = any_jobs.slurm
    by_hand = any_jobs.start(TWO_RUNS, requeue=True, slurm={"nodelist": "n1"})
    by_node = any_jobs.start(TWO_RUNS, requeue=True, slurm={"nodelist": "n2"})
    by_other = any_jobs.start(TWO_RUNS, requeue=True, slurm={"partition": "scavenge", **ALONE})
    for job in (by_hand, by_node, by_other):
        job.expect_start()
    slurm.requeue(by_hand.id)
    slurm.node_down("n2")
    slurm.submit("true", "--exclusive", "--nodelist=n3")
    for job in (by_hand, by_node, by_other):
        job.expect_logged("restarted once")
    slurm.node_up("n2")
    for job in (by_hand, by_node, by_other):
        job.end()
        assert (job.value, job.error) == ("42", None)
        job.has_whole_log(runs=2)


def test_requeue_false_prevents_requeue(jobs) -> None:
    """Slurm refuses to requeue it, and it goes on."""
    job = jobs.start("wait_for('enough')")
    job.expect_start()
    assert jobs.slurm.command("scontrol", "requeue", job.id, check=False) == ""
    job.create_file("enough")
    job.succeeds()
    assert jobs.slurm.job(job.id).restarts == 0


def test_requeued_and_held_job_is_unsatisfiable(jobs) -> None:
    """It would wait for ever; the error names the reason, and it is cancelled."""
    job = jobs.start("wait_for('the end of days')", requeue=True)
    job.expect_start()
    jobs.slurm.command("scontrol", "requeuehold", job.id)
    job.fails(errors.SlurmUnsatisfiable, "job requeued in held state", "It has been cancelled")
    assert jobs.slurm.state(job.id) == "CANCELLED"


def test_suspended_job_is_still_running(jobs) -> None:
    """It is logged, and waited for."""
    job = jobs.start("wait_for('enough')")
    job.expect_start()
    jobs.slurm.suspend(job.id)
    job.expect_logged("is SUSPENDED")
    jobs.slurm.resume(job.id)
    job.create_file("enough")
    job.succeeds()


# --- Jobs that Slurm does not know any more


@pytest.mark.parametrize("accounting", [False, True], ids=["without accounting", "with accounting"])
def test_forgotten_job_is_resolved_by_exit_record_or_accounting(make_slurm, talk_to, jobs_on, accounting) -> None:
    """With a record nothing is missing; without, accounting knows more than nothing; without both it is lost."""
    slurm = talk_to(make_slurm(nodes=1, min_job_age=2, accounting=accounting))
    jobs = jobs_on(slurm)
    slurm.put_in_front("squeue", f"while [ -e {slurm.folder}/closed ]; do sleep 0.1; done")
    ends = ("say(42)", "sys.exit(3)", "")
    succeeds, fails, is_killed = (jobs.start(f"wait_for('enough'); {end}", lost_after=4.0) for end in ends)
    for job in (succeeds, fails, is_killed):
        job.expect_start()
    (slurm.folder / "closed").touch()
    succeeds.create_file("enough")
    fails.create_file("enough")
    os.kill(is_killed.directory.read_start().pid, signal.SIGKILL)
    slurm.until(lambda: not slurm.command("squeue", "-h", "-t", "all"), "a controller that has forgotten all")
    (slurm.folder / "closed").unlink()
    assert succeeds.succeeds() == "42"
    fails.fails(errors.SlurmJobFailed, "failed with exit code 3")
    if accounting:
        is_killed.fails(errors.SlurmJobFailed, "was ended by signal 9 and left no exit record")
    else:
        is_killed.fails(errors.SlurmJobLost, "neither slurmctld nor slurmdbd knows it", "it began on n1")


def test_cancelled_and_forgotten_job_ends_despite_requeue(make_slurm, talk_to, jobs_on, monkeypatch) -> None:
    """A possible requeue does not prevent its end, once Slurm does not know it."""
    monkeypatch.setattr(monitor, "_REASON_GRACE", 1.0)
    slurm = talk_to(make_slurm(nodes=1, min_job_age=2))
    job = jobs_on(slurm).start("wait_for('the end of days')", requeue=True)
    job.expect_start()
    job.expect_logged("is RUNNING")
    slurm.put_in_front("squeue", f"while [ -e {slurm.folder}/closed ]; do sleep 0.1; done")
    (slurm.folder / "closed").touch()
    slurm.command("scancel", job.id)
    slurm.until(lambda: not slurm.command("squeue", "-h", "-t", "all"), "a controller that has forgotten it")
    (slurm.folder / "closed").unlink()
    job.fails(errors.SlurmCancelled, "was cancelled")


# --- Exit records


def test_poll_waits_for_late_exit_record(jobs) -> None:
    """Until then Slurm reports COMPLETED, which is not a success; with the record it is one."""
    job = jobs.start(HIDES_ITS_RECORD)
    job.expect_logged("is COMPLETED")
    assert job.ending is None
    os.rename(f"{job.directory.path}/elsewhere", job.directory.exit)
    assert job.succeeds() == "42"


def test_completed_without_exit_record_raises_job_lost(jobs) -> None:
    """After `lost_after` the job is a failure that names the want of evidence."""
    begin = time.monotonic()
    job = jobs.start(HIDES_ITS_RECORD, lost_after=3.0)
    error = job.fails(errors.SlurmJobLost, "Slurm reports COMPLETED, but there is no exit record", "waited 3 s")
    assert error.state == "COMPLETED"
    assert time.monotonic() - begin > 3.0


# A folder in the place of the scratch file keeps the script from writing a record.
FILLS_THE_DISK = """
    os.mkdir(os.path.join(run_dir, "exit.json." + os.environ["SLURM_JOB_ID"]))
    say("42")
"""
# A process that outlives the job takes the record away, as a file server would that is slow.
HIDES_ITS_RECORD = """
    import subprocess
    record = os.environ["SEWER_RESULT_FILE"].replace("result.json", "exit.json")
    code = (
        "import os, sys, time\\n"
        "def text(): return os.path.exists(sys.argv[1]) and open(sys.argv[1]).read() or ''\\n"
        "while f'is_torn_down{chr(34)}: true' not in text(): time.sleep(0.001)\\n"  # not to spin
        "os.rename(sys.argv[1], os.path.join(os.path.dirname(sys.argv[1]), 'elsewhere'))\\n"
    )
    env = {"PATH": os.environ["PATH"]}
    hidden = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.Popen([sys.executable, "-c", code, record], env=env, start_new_session=True, **hidden)
    time.sleep(0.5)
    say("42")
"""


def spoil(job, how: str) -> None:
    """Put something in the place of the record that is none of this job's present run."""
    record = Path(job.directory.exit)
    whole = json.loads(record.read_text())
    record.unlink()
    if how == "a directory":
        record.mkdir()
    elif how == "half of it":
        record.write_text(json.dumps(whole)[:40])
    elif how == "another job's":
        record.write_text(json.dumps({**whole, "job_id": "1234567"}))
    elif how == "an earlier run's":
        start = json.loads(Path(job.directory.start).read_text())
        Path(job.directory.start).write_text(json.dumps({**start, "restart": 1}))
        record.write_text(json.dumps(whole))


def test_unreadable_or_foreign_exit_record_is_not_success(jobs) -> None:
    """One that is unreadable or half-written is an error; another job's or an earlier run's counts as missing."""
    ways = ("a directory", "half of it", "another job's", "an earlier run's")
    followed = {way: jobs.start("wait_for('enough')", lost_after=3.0) for way in ways}
    for job in followed.values():
        job.expect_start()
    for way, job in followed.items():
        freeze(job)
        job.create_file("enough")
        until(JobDirectory(job.directory.path).read_exit, lambda: "a record")
        spoil(job, way)
        thaw(job)
    for way, job in followed.items():
        if way in ways[:2]:
            job.fails(errors.UnreadableRecord, "has ended, and may have succeeded, but")
        else:
            job.fails(errors.SlurmJobLost, "Slurm reports COMPLETED, but there is no exit record")
        reported = [line for line in job.logged if "Cannot read the exit record" in line]
        assert len(reported) == (way in ways[:2]), job.logged


def freeze(job) -> None:
    """Let a follower read no record until it is thawed."""
    directory = job.directory
    job.reads = directory.read_module_end
    directory.read_module_end = lambda: None


def thaw(job) -> None:
    """Let it read again."""
    job.directory.read_module_end = job.reads


def test_pause_of_the_monitor_does_not_count_for_lost_after(plan, slurm, worker) -> None:
    """A monitor that wakes up asks Slurm again before it gives up a job that was unknown once."""
    planned = plan("wait_for('go')", poll_interval=2.0, max_poll_interval=2.0, lost_after=20.0)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.expect("is RUNNING")
    slurm.put_in_front("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    (directory,) = folders(planned)
    until(lambda: directory.read_unknown_seconds() > 0, lambda: "the record of a job that Slurm does not know")
    with first.paused():
        slurm.put_in_front("squeue", "sleep 2")  # so that the monitor is awake before there is an answer
        time.sleep(18)  # longer than the rest of lost_after

    first.expect("is RUNNING", times=2)

    let_go(planned)
    slurm.wait_for(job_id, "COMPLETED")
    assert not [line for line in first.wait() if "SlurmJobLost" in line]


def test_failed_exit_record_ends_wait_without_slurm(jobs, monkeypatch) -> None:
    """A controller that is away for long does not hold up a failure that the job has recorded."""
    monkeypatch.setattr(monitor, "_REASON_GRACE", 1.0)
    job = jobs.start("wait_for('enough'); sys.exit(3)")
    job.expect_logged("is RUNNING")
    jobs.slurm.put_in_front("squeue", "echo 'it is away' >&2; exit 1")
    job.create_file("enough")
    job.fails(errors.SlurmJobFailed, "failed with exit code 3")


# --- Job directories


def test_full_disk_raises_launch_failure(jobs) -> None:
    """A job that cannot write its record fails for that reason, with any exit code of its module."""
    job = jobs.start(FILLS_THE_DISK)
    job.fails(errors.SlurmLaunchFailure, "could not write into its run directory", "is its disk full")


def test_removed_job_directory_is_not_success(jobs) -> None:
    """The module may have ended well: there is no evidence of it."""
    job = jobs.start("wait_for('enough')")
    job.expect_start()
    until(lambda: job.stdout.endswith("line 39\n") and job.stderr, lambda: job.stdout)
    os.rename(job.directory.path, f"{job.directory.path}.gone")  # at once: a follower writes into it
    jobs.slurm.command("scancel", "--signal=TERM", "--full", job.id)
    job.end()
    assert type(job.error) in {errors.SlurmCancelled, errors.SlurmLaunchFailure}, job.error
    job.has_whole_log()


def test_exit_record_of_outdated_run_is_ignored(jobs) -> None:
    """A node that was given up too early still runs the module: that ends itself, and its record is none."""
    source = """
        if "SLURM_RESTART_COUNT" in os.environ:
            wait_for("enough for the second")
            sys.exit(3)
        wait_for("the end of days")
    """
    job = jobs.start(source, requeue=True, slurm={"nodelist": "n2"})
    job.expect_start()
    first = job.directory.read_start().pid
    jobs.slurm.kill("n2")
    jobs.slurm.node_down("n2")
    job.expect_logged("restarted once")
    assert psutil.pid_exists(first)
    jobs.slurm.start_daemon("n2")
    jobs.slurm.node_up("n2")
    job.expect_start(runs=2)
    jobs.slurm.until(lambda: not psutil.pid_exists(first), "the first run to end itself")
    job.create_file("enough for the second")
    job.fails(errors.SlurmJobFailed, "failed with exit code 3", runs=2)
