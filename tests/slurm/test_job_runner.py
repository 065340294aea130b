"""Consecutive tries of one task: which job is reattached or submitted again, and never two jobs at once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core.errors import SlurmCancelled, SlurmJobFailed, SlurmJobLost
from tests.slurm.worker import OVER, folders, let_go, real, seen

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.job_spec import JobSpec


UNTIL_GO = 'wait_for("go"); say("done")'


def cleared(planned: JobSpec) -> JobSpec:
    """Return the same after a user has cleared the task."""
    return planned._replace(instance=planned.instance._replace(clears="1"))


# -- A worker that is killed -------------------------------------------------------------------------------------------


def test_retry_submits_once_after_worker_killed_before_sbatch(plan, jobs, slurm, worker):
    """The intent is recorded, no job follows, and once that is certain, there is one job."""
    planned = plan("say('done')")
    slurm.put_in_front("squeue", "sleep 30")
    first = worker(planned)
    slurm.until(lambda: slurm.counted("squeue"), "the look-up before the submission")
    first.kill()
    assert folders(planned)[0].read_attempt()["name"]
    slurm.take_away()
    second = jobs.follow(planned)
    assert second.succeeds() == "done"
    assert seen(slurm, planned) == [second.id]
    second.expect_logged("may still be under way")


@pytest.mark.parametrize("moment", ["before it is heard", "after it is heard"])
def test_retry_reattaches_after_worker_killed_during_sbatch(plan, jobs, slurm, worker, moment):
    """sbatch goes on without the worker; the next try waits for its outcome."""
    planned = plan(UNTIL_GO)
    real_sbatch = real(slurm, "sbatch")
    slow = {"before it is heard": "sleep 2", "after it is heard": f'{real_sbatch} "$@"; sleep 30; exit 1'}[moment]
    slurm.put_in_front("sbatch", slow)
    first = worker(planned)
    slurm.until(lambda: slurm.counted("sbatch") and (seen(slurm, planned) or "before" in moment), "sbatch")
    first.kill()
    second = jobs.follow(planned)
    assert [second.id] == seen(slurm, planned)
    let_go(planned)
    assert second.succeeds() == "done"
    assert slurm.counted("sbatch") == 1


def test_retry_reattaches_after_worker_killed_post_sbatch(plan, jobs, slurm, worker):
    """The running job is followed from its first line."""
    planned = plan(UNTIL_GO)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    second = jobs.follow(planned)
    second.expect_logged("Reattaching to", job_id)
    let_go(planned)
    assert second.succeeds() == "done"
    assert seen(slurm, planned) == [job_id]


def test_retry_collects_uncollected_success(plan, jobs, slurm, worker):
    """The job ended well while there was no worker: the module does not run again."""
    planned = plan(UNTIL_GO)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    let_go(planned)
    slurm.wait_for(job_id, "COMPLETED")
    second = jobs.follow(planned)
    assert second.succeeds() == "done"
    assert seen(slurm, planned) == [job_id] == [second.id]


@pytest.mark.parametrize("is_cleared", [False, True], ids=["cancelled", "cleared"])
def test_reattach_to_success_despite_cancel_but_not_clear(plan, jobs, slurm, worker, is_cleared):
    planned = plan(UNTIL_GO)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    let_go(planned)
    slurm.wait_for(job_id, "COMPLETED")
    folders(planned)[0].write_cancelled(is_cleared=is_cleared)
    second = jobs.follow(planned)
    slurm.until(lambda: second.error or len(seen(slurm, planned)) == 1 + is_cleared, "the jobs of both tries")
    let_go(planned)
    assert second.succeeds() == "done"
    assert (second.id == job_id) is not is_cleared


def test_reattach_to_success_killed_during_teardown(plan, jobs, slurm, worker):
    teardown = ["echo tears down", "while :; do sleep 1; done"]  # with any signal
    planned = plan("say('done')", slurm={"teardown": teardown})
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    slurm.until(lambda: folders(planned)[0].has_success, "the end of the module")
    first.kill()
    folders(planned)[0].write_cancelled()
    slurm.command("scancel", job_id)
    slurm.wait_for(job_id, "CANCELLED")
    second = jobs.follow(planned)
    second.end()
    assert (second.value, second.error) == ("done", None)
    assert seen(slurm, planned) == [job_id] == [second.id]


def test_lost_after_continues_across_monitors(plan, jobs, slurm, worker):
    """Followers that end before ``lost_after`` is over add up their time."""
    planned = plan("wait_for('go')", lost_after=12.0)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    slurm.wait_for(job_id, "RUNNING")
    (directory,) = folders(planned)
    slurm.put_in_front("squeue", "exit 0")  # the controller has forgotten every job
    slurm.until(lambda: directory.read_unknown_seconds() >= 5, "the record of the first follower")
    first.kill()
    before = directory.read_unknown_seconds()
    second = jobs.follow(planned)
    began = time.monotonic()
    second._thread.join(60)
    took = time.monotonic() - began
    slurm.take_away()
    assert type(second.error) is SlurmJobLost
    assert before < 12
    assert took < 12 - before + 10  # the look-up of the job, and its cancelling


def test_lost_after_restarts_when_slurm_knows_the_job_again(plan, jobs, slurm, worker):
    planned = plan(UNTIL_GO, lost_after=600.0)
    run = jobs.follow(planned)
    run.expect_start()
    slurm.put_in_front("squeue", "exit 0")
    slurm.until(lambda: run.directory.read_unknown_seconds() >= 5, "a record")
    slurm.take_away()
    slurm.until(lambda: run.directory.read_unknown_seconds() == 0, "a record that is reset")
    run.create_file("go")
    assert run.succeeds() == "done"


def with_orphan_timeout(planned: JobSpec, seconds: float) -> JobSpec:
    """Return the same with a timeout that is too short for a user's settings."""
    return planned._replace(slurm=planned.slurm._replace(orphan_timeout=seconds))


def test_orphan_timeout_ends_unmonitored_job(plan, jobs, slurm, worker):
    planned = with_orphan_timeout(plan(UNTIL_GO), 4.0)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    slurm.wait_for(job_id, "RUNNING")
    first.kill()
    slurm.wait_for(job_id, *OVER)
    (directory,) = folders(planned)
    assert directory.read_orphaned() == 4
    second = jobs.follow(planned)  # that job is no success: a new one runs
    slurm.until(lambda: len(seen(slurm, planned)) == 2, "the second job")
    let_go(planned)
    assert second.succeeds() == "done"


@pytest.mark.parametrize("settings", [{"on_kill_action": "keep_job"}, {"wait_for_completion": False}], ids=str)
def test_orphan_timeout_spares_job_without_monitor_by_setting(plan, settings):
    planned = plan("pass", **settings)
    assert planned.script("name", planned.task.call(lambda marker: marker)).orphan_timeout == 0


def test_follow_orphaned_job_raises_slurm_cancelled_with_cause(plan, jobs, slurm):
    run = jobs.follow(with_orphan_timeout(plan("wait_for('go')"), 5.0))
    run.expect_start()
    os.utime(run.directory.monitor, (0, 0))
    os.utime(run.directory.start, (0, 0))
    run.fails(SlurmCancelled, "no worker, triggerer or sppe monitored it for orphan_timeout, 5 s")


def test_collected_attempt_is_not_reattached(plan, jobs, slurm):
    """A try after that submits a new job."""
    planned = plan("say('done')")
    first = jobs.follow(planned)
    assert first.succeeds() == "done"
    second = jobs.follow(planned)
    assert second.succeeds() == "done"
    assert seen(slurm, planned) == [first.id, second.id]


def test_retry_reattaches_to_local_job_after_worker_killed(plan, jobs, slurm, worker):
    """Without Slurm it is the same story: one process, before and after."""
    planned = plan(UNTIL_GO, cluster="local")
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    jobs.slurm = None
    second = jobs.follow(planned)
    assert second.id == job_id
    let_go(planned)
    assert second.succeeds() == "done"
    assert len(folders(planned)) == 1
    assert seen(slurm, planned) == []


def test_retry_finds_unrecorded_local_job_by_name(plan, jobs, slurm, worker):
    """Only the process shows it."""
    planned = plan(UNTIL_GO, cluster="local")
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    Path(folders(planned)[0].path, "job.json").unlink()
    jobs.slurm = None
    second = jobs.follow(planned)
    assert second.id == job_id
    let_go(planned)
    assert second.succeeds() == "done"


# -- New attempts ----------------------------------------------------------------------------------------------------


def test_retry_after_failed_job_submits_new_job(plan, jobs, slurm):
    """The second try has its own job and job directory."""
    planned = plan("sys.exit(3 if run_dir.endswith('/1') else 0)")
    first = jobs.follow(planned)
    first.fails(SlurmJobFailed, "exit code 3")
    second = jobs.follow(planned)
    second.succeeds()
    assert seen(slurm, planned) == [first.id, second.id]


def test_retry_does_not_reattach_to_failed_job(plan, jobs, slurm, worker):
    """It does not cost the next try, which submits a new job."""
    planned = plan("wait_for('go'); sys.exit(3 if run_dir.endswith('/1') else 0)")
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    let_go(planned)
    slurm.wait_for(job_id, "FAILED")
    second = jobs.follow(planned)
    slurm.until(lambda: len(seen(slurm, planned)) == 2, "the second job")
    let_go(planned)
    second.succeeds()
    assert seen(slurm, planned) == [job_id, second.id]


@pytest.mark.parametrize("was", ["RUNNING", "PENDING", "COMPLETED", "FAILED", "CANCELLED"])
def test_clear_cancels_previous_job_and_submits_new_one(plan, jobs, slurm, worker, was, tmp_path):
    """A job that is not over is cancelled, and over before the new one is submitted."""
    code = 3 if was == "FAILED" else 0
    held = {"additional_parameters": {"hold": True}} if was == "PENDING" else {}
    planned = plan(f"wait_for('go'); sys.exit({code})", slurm=held)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    slurm.wait_for(job_id, "PENDING" if was == "PENDING" else "RUNNING")
    first.kill()
    if was in {"COMPLETED", "FAILED"}:
        let_go(planned)
    elif was == "CANCELLED":
        slurm.command("scancel", job_id)
    slurm.wait_for(job_id, was)
    alive = tmp_path / "alive"
    slurm.put_in_front("sbatch", f"{real(slurm, 'squeue')} -h -t pending,running,completing -o %j > {alive}")
    second = jobs.follow(cleared(plan_without_hold(planned)))
    assert second.id != job_id
    assert planned.instance.dag_id not in alive.read_text()
    # Slurm lets the script end by itself when it cancels a job, and may note that end instead.
    assert slurm.job(job_id).state in ({was} if was in OVER else {"CANCELLED", "FAILED"})
    let_go(planned)
    second.end()
    assert seen(slurm, planned) == [job_id, second.id]


def plan_without_hold(planned: JobSpec) -> JobSpec:
    """Return the same, but not to be held."""
    return planned._replace(slurm=planned.slurm._replace(slurm={}))


def test_clear_cancels_unrecorded_job_found_by_name(plan, jobs, slurm, worker):
    """Only its name identifies it."""
    planned = plan(UNTIL_GO)
    slurm.put_in_front("sbatch", f'{real(slurm, "sbatch")} "$@"; sleep 30; exit 1')
    first = worker(planned)
    slurm.until(lambda: seen(slurm, planned), "the job")
    first.kill()
    slurm.take_away()
    job_id = seen(slurm, planned)[0]
    second = jobs.follow(cleared(planned))
    assert second.id != job_id
    # Its script may have ended it by itself, which Slurm notes in another way, if the look-ups took long.
    assert slurm.job(job_id).state in {"CANCELLED", "FAILED"}
    let_go(planned)
    assert second.succeeds() == "done"
    assert seen(slurm, planned) == [job_id, second.id]


def test_retry_without_durable_cancels_and_submits_new_job(plan, jobs, slurm, worker):
    """Nothing is taken up."""
    planned = plan(UNTIL_GO, durable=False)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    second = jobs.follow(planned)
    assert second.id != job_id
    assert slurm.job(job_id).state == "CANCELLED"
    let_go(planned)
    assert second.succeeds() == "done"


def test_clear_with_keep_job_keeps_previous_job(plan, jobs, slurm, worker):
    """Both run to their end."""
    planned = plan(UNTIL_GO, on_kill_action="keep_job")
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    second = jobs.follow(cleared(planned))
    assert second.id != job_id
    assert slurm.state(job_id) in {"PENDING", "RUNNING"}
    let_go(planned)
    assert second.succeeds() == "done"
    slurm.wait_for(job_id, "COMPLETED")


# -- Cancelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outlives", [True, False], ids=["worker goes on", "worker is killed"])
def test_sigterm_during_sbatch_leaves_no_job_running(plan, jobs, slurm, worker, outlives, tmp_path):
    """SIGTERM comes while sbatch is slow: the job that comes of it runs nothing."""
    ran = tmp_path / "ran"
    planned = plan(f"open({str(ran)!r}, 'w'); time.sleep(600)")
    slurm.put_in_front("sbatch", "sleep 2")
    first = worker(planned)
    slurm.until(lambda: slurm.counted("sbatch"), "sbatch")
    first.stop()
    first.expect("told to stop")
    if outlives:
        assert any("SlurmCancelled" in line for line in first.wait())
    else:
        first.kill()
        slurm.until(lambda: seen(slurm, planned), "the job")
    slurm.until(lambda: all(job.state in OVER for job in slurm.jobs(planned.instance.dag_id)), "the end of the job")
    assert len(seen(slurm, planned)) == 1
    assert not ran.exists()
