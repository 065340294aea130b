"""Slurm jobs survive the processes that wait for them: workers, their supervisors and the scheduler are killed."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import psutil
import pytest

from .deployment import still_running
from .slurm_cases import SECRET, succeeded


def test_slurm_job_runs_in_airflow(start, airflow):
    """Without any trouble, from a worker and from the triggerer: one job each, its result, its link, its whole log."""
    cases = start("works", "defers")
    for case in cases:
        case.runs()
    cases[0].is_followed()
    cases[1].is_deferred()
    (job,) = cases[1].jobs()
    assert airflow.links(*cases[1].key) == {"Slurm job": f"https://slurm.example/jobs/{job.id}"}
    for case in cases:
        case.enough()
    for case in cases:
        succeeded(case)
        (job,) = case.jobs()
        assert airflow.links(*case.key) == {"Slurm job": f"https://slurm.example/jobs/{job.id}"}


def test_retry_reattaches_after_worker_killed(start, airflow):
    """The worker is killed, or its supervisor, or both: one job, and the logs of both tries make one.

    A worker that has lost its supervisor ends by itself: no process reads its log lines.
    """
    cases = start("works", "works", "works")
    for case in cases:
        case.is_followed()
    workers = [psutil.Process(airflow.worker_pid(*case.key)) for case in cases]
    supervisors = [airflow.supervisor_pid(*case.key) for case in cases]
    with ExitStack() as silence:
        for case in cases:
            silence.enter_context(case.silence())
        for pid in (workers[0].pid, supervisors[1], workers[2].pid, supervisors[2]):
            os.kill(pid, signal.SIGKILL)
        airflow.until(lambda: not still_running(workers), "the end of all workers")
    for case in cases:
        case.until(lambda case=case: case.tries() == 2, "the next try")
        case.is_followed()
        case.enough()
    for case in cases:
        succeeded(case)
        assert case.tries() == 2


def test_worker_killed_behind_stopped_supervisor_repeats_few_lines(start, airflow):
    """While the supervisor reads nothing, the worker logs one chunk and waits; the next try logs that chunk again."""
    case = start("works")
    case.is_followed()
    worker, supervisor = airflow.worker_pid(*case.key), airflow.supervisor_pid(*case.key)
    os.kill(supervisor, signal.SIGSTOP)
    before = len(case.written()["1"])
    case.until(lambda: len(case.written()["1"]) > before + 60, "lines that the supervisor does not read")
    os.kill(worker, signal.SIGKILL)
    os.kill(supervisor, signal.SIGCONT)
    case.until(lambda: case.tries() == 2, "the next try")
    case.enough()
    case.ends("success")
    (written,) = case.written().values()
    logged = case.logged()
    assert set(logged) == {line.replace(SECRET, "***") for line in written}
    assert len(logged) - len(written) < 30


def test_worker_killed_during_sbatch_leaves_one_job(start, airflow, stage):
    """The next try waits for the submission that the killed worker has begun, and takes its job up."""
    stage.slurm.put_in_front("sbatch", "sleep 6")
    case = start("works")
    case.until(lambda: stage.slurm.counted("sbatch"), "sbatch to be called")
    os.kill(airflow.worker_pid(*case.key), signal.SIGKILL)
    case.until(lambda: case.tries() == 2, "the next try")
    assert case.jobs() == []
    case.enough()
    succeeded(case)
    assert [case.tries(), stage.slurm.counted("sbatch")] == [2, 1]


@pytest.mark.parametrize("deferred", [False, True], ids=["worker", "triggerer"])
def test_jobs_survive_scheduler_restart(start, airflow, deferred):
    """It is killed with all its workers, and a new one begins: one job, also for a task without retries."""
    cases = start("defers", "defers_once") if deferred else start("works", "works_once")
    for case in cases:
        case.is_deferred() if deferred else case.is_followed()
    with ExitStack() as silence:
        for case in cases:
            silence.enter_context(case.silence())
        airflow.kill_part("scheduler")
    airflow.start_part("scheduler")
    for case in cases:
        if not deferred:
            case.until(lambda case=case: case.tries() == 2, "the next try")
            case.is_followed()
        case.enough()
    for case in cases:
        succeeded(case)


def test_jobs_survive_killed_scheduler_with_live_workers(start, airflow):
    """The new scheduler takes the task from the old worker, whose ``on_kill`` then leaves the job to the next try."""
    cases = start("works", "works_once")
    for case in cases:
        case.is_followed()
    with ExitStack() as silence:
        for case in cases:
            silence.enter_context(case.silence())
        airflow.kill_part("scheduler", workers=False)
        airflow.start_part("scheduler")
        for case in cases:
            case.until(lambda case=case: case.tries() == 2, "the next try")
    for case in cases:
        case.is_followed()
        case.enough()
    for case in cases:
        succeeded(case)
