"""Clearing and marking of tasks by a user, also during failures: no job is left behind, and none runs twice."""

from __future__ import annotations

import os
import signal

import pytest

from .slurm_cases import Case, succeeded


def followed(cases):
    """Wait until a worker or the triggerer has logged the lines of all cases, as their DAGs set it."""
    for case in cases:
        case.is_followed() if case.dag_id.startswith("works") else case.is_deferred()


def test_clear_cancels_and_resubmits_the_job(start, airflow):
    """While it runs, while it is deferred, after a success and after a failure: one new job, and none beside it."""
    running, deferred, done, failed = cases = start("works", "defers", "defers", "works_once")
    followed(cases)
    failed.send("fails")
    for case in (done, failed):
        case.enough()
    done.ends("success")
    failed.ends("failed")
    for case, state in ((done, "success"), (failed, "failed")):
        # A run that is just about to end would end with the task cleared in it.
        case.until(lambda case=case, state=state: airflow.run_state(*case.key[:2]) == state, "the end of the run")
        case.is_over()
        case.withdraw("enough")
    failed.withdraw("fails")
    for case in cases:
        airflow.clear(case.dag_id, case.run_id, ["job"])
    for case in cases:
        case.runs(2)
        case.enough()
    for case in cases:
        ends = {id(done): "COMPLETED", id(failed): "FAILED"}
        succeeded(case, earlier=(ends.get(id(case), "CANCELLED"),))
        case.earlier_log_is_true()
    assert running.tries() == deferred.tries() == 2


def test_retry_requests_more_until_a_clear(start, airflow, stage):
    """With a worker and with the triggerer: twice the memory in the second try, and the task's own after a clear."""
    cases = start("works_and_learns", "defers_and_learns")
    for case in cases:
        case.runs()
        stage.slurm.out_of_memory(case.jobs()[0].id)
    for case in cases:
        case.runs(2)
        assert case.tries() == 2
        assert [memory(stage, job) for job in case.jobs()] == ["128M", "256M"]
        assert "Retrying with mem_gb=0.25 (was 0.125): out of memory" in case.text_of_log(2)
    followed(cases)
    for case in cases:
        airflow.clear(case.dag_id, case.run_id, ["job"])
    for case in cases:
        case.runs(3)
        assert memory(stage, case.jobs()[2]) == "128M"
        case.enough()
    for case in cases:
        case.ends("success")
        case.is_over()


def memory(stage, job) -> str:
    """Return the requested memory of a job, by Slurm's own account."""
    words = stage.slurm.command("scontrol", "show", "job", "-o", job.id).split()
    return next(word.partition("=")[2] for word in words if word.startswith("MinMemoryNode="))


def test_clear_after_worker_death_resubmits_the_job(start, airflow):
    """No process is left to cancel the job, so the next try cancels it before submitting a new one."""
    case = start("works_once")
    case.is_followed()
    for pid in (airflow.worker_pid(*case.key), airflow.supervisor_pid(*case.key)):
        os.kill(pid, signal.SIGKILL)
    airflow.clear(case.dag_id, case.run_id, ["job"])
    case.runs(2)
    case.enough()
    succeeded(case, earlier=("CANCELLED",))


@pytest.mark.parametrize("state", ["failed", "success"])
def test_mark_task_cancels_its_job(start, airflow, state):
    """Whether a worker follows it or the triggerer does, and the same if the whole run is marked."""
    cases = start("works", "defers", "defers")
    followed(cases)
    for case in cases[:2]:
        airflow.mark(*case.key, state)
    airflow.mark_run(*cases[2].key[:2], "failed")
    for case in cases:
        case.is_over()
        case.has_seen("CANCELLED")
        case.earlier_log_is_true()
    assert [case.state() for case in cases] == [state, state, "failed"]


@pytest.mark.parametrize("trouble", ["frozen", "stopped"])
def test_mark_task_while_slurmctld_is_down_ends_the_job(start, airflow, stage, trouble):
    """The job reads the mark in its job directory and ends itself, or does not start."""
    *running, held = cases = start("works_once", "defers_once", "defers_held")
    followed(running)
    held.until(lambda: held.state() == "deferred" and "is PENDING" in held.text_of_log(), "a held job that is watched")
    if trouble == "frozen":
        stage.slurm.freeze("slurmctld")
    else:
        stage.slurm.stop_daemon("slurmctld")
    for case, state in zip(cases, ("failed", "success", "failed"), strict=True):
        airflow.mark(*case.key, state)
    for case in running:
        case.until(lambda case=case: not case.processes(), "the end of the module", 30)
    marked = lambda: list(held.folder.glob("runs/**/cancelled"))  # noqa: E731
    held.until(marked, "word for the held job")
    if trouble == "frozen":
        stage.slurm.thaw("slurmctld")
    else:
        stage.slurm.start_daemon("slurmctld")
        stage.slurm.command("scontrol", "release", held.jobs()[0].id, check=False)
    for case in cases:
        case.is_over()
        assert len(case.jobs()) == 1
    assert held.written() in ({}, {"1": []})
    for case in running:
        case.earlier_log_is_true()


def test_keep_job_survives_mark_failed(start, airflow):
    """With on_kill_action="keep_job", a task that is marked as failed leaves its job alone."""
    cases = start("works_and_keeps", "defers_and_keeps")
    followed(cases)
    for case in cases:
        airflow.mark(*case.key, "failed")
    for case in cases:
        case.until(lambda case=case: "keep_job" in case.text_of_log(), "log line about keep_job")
        case.has_seen("RUNNING")
        case.enough()
    for case in cases:
        case.is_over()
        case.has_seen("COMPLETED")
        assert case.state() == "failed"


def test_execution_timeout_applies_to_deferred_task(start):
    """Then its job is cancelled, and it fails."""
    case = start("defers_not_for_long")
    case.is_deferred()
    case.ends("failed")
    case.is_over()
    case.has_seen("CANCELLED")
    case.earlier_log_is_true()


def test_equal_task_ids_in_two_dags_get_separate_jobs(stage, airflow, tmp_path):
    """Even if they share the folder of their job directories and the name that they give their jobs."""
    cases = [Case(stage, tmp_path / "both", dag_id) for dag_id in ("defers", "defers_once", "works")]
    followed(cases)
    cases[0].enough()
    for case in cases:
        case.ends("success")
        case.log_is_complete()
    jobs = cases[0].jobs()
    assert {case.result()["job"] for case in cases} == {job.id for job in jobs}
    assert len({job.name for job in jobs}) == len(jobs) == 3
    cases[0].is_over()
