"""Jobs whose usage is summed up: those of recorded runs of ``sppe``, or those in job directories, also of Airflow."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.execution.task_usage import TaskUsage
from airflow_provider_sewer.slurm.accounted_usage import with_accounting
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_records import SUCCESS
from airflow_provider_sewer.slurm.job_usage import finished_usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_sewer.execution.run_record import RunRecord
    from airflow_provider_sewer.slurm.job_records import JobUsage

#: Number of latest runs whose jobs count where no time is given.
LAST_RUNS = 10


class FinishedJob(NamedTuple):
    """Job that has ended.

    :param task: its task; of a mapped task, that without values.
    :param run: the run that it belongs to.
    :param moment: when that run or the job started, in seconds since 1970.
    :param usage: its usage.
    """

    task: str
    run: tuple[str, str]
    moment: float
    usage: TaskUsage


def latest_runs(runs: Sequence[RunRecord], since: float | None) -> list[RunRecord]:
    """Return the runs since a time, or the latest ones.

    :param runs: the newest first.
    :param since: in seconds since 1970.
    """
    return list(runs[:LAST_RUNS]) if since is None else [run for run in runs if run.started >= since]


def accounted_runs(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], str]:
    """Return the runs with the figures of accounting, and why there are none, if there should be."""
    usages = [task.usage for run in runs for task in run.tasks.values()]
    updated, reason = with_accounting([usage for usage in usages if usage.job_id])
    of_jobs = iter(updated)
    return [
        run._replace(
            tasks={
                name: task._replace(usage=next(of_jobs)) if task.usage.job_id else task
                for name, task in run.tasks.items()
            }
        )
        for run in runs
    ], reason


def jobs_of_runs(runs: Iterable[RunRecord]) -> list[FinishedJob]:
    """Return the jobs of recorded runs whose end is known, in the order of the runs.

    A run records the last attempt at a task; the earlier ones are those in its other job directories.
    """
    jobs: list[FinishedJob] = []
    counted: set[str] = set()
    for run in runs:
        for task in run.tasks.values():
            for usage in (task.usage, *_earlier_attempts(task.usage)):
                is_new = not usage.directory or usage.directory not in counted
                if is_new and usage.job_id and usage.exit_class:
                    name = task.name.partition("[")[0]
                    jobs.append(FinishedJob(name, (run.workflow, run.path), run.started, usage))
                    counted.add(usage.directory)
    return jobs


def _earlier_attempts(usage: TaskUsage) -> Iterator[TaskUsage]:
    """Yield the usage of the attempts before one, the latest first."""
    folder, number = os.path.split(usage.directory)
    for earlier in range(int(number) - 1, 0, -1) if number.isdecimal() else ():
        directory = JobDirectory(os.path.join(folder, str(earlier)))
        if (saved := directory.read_usage()) is None:
            return
        yield _task_usage(saved, directory)


def jobs_below(folder: str) -> list[FinishedJob]:
    """Return the jobs in the job directories below a folder, the newest first.

    A job that no process has seen the end of counts if it has recorded its end itself, or accounting knows it.
    """
    found = [(usage, directory) for directory in _directories(folder) if (usage := directory.read_usage())]
    dags = {usage.dag_id for usage, _ in found}
    jobs = []
    for saved, directory in found:
        usage = saved if saved.exit_class else _without_collection(directory)
        task = usage.task.partition("[")[0] if len(dags) == 1 else f"{usage.dag_id}.{usage.task.partition('[')[0]}"
        moment = usage.started or usage.ended or 0.0
        jobs.append(FinishedJob(task, (usage.dag_id, usage.run_id), moment, _task_usage(usage, directory)))
    return sorted((job for job in jobs if job.usage.job_id), key=lambda job: -job.moment)


def accounted_jobs(jobs: Sequence[FinishedJob]) -> tuple[list[FinishedJob], str]:
    """Return the jobs with the figures of accounting, and why there are none, if there should be.

    A job whose end is not known is left out.
    """
    usages, reason = with_accounting([job.usage for job in jobs])
    updated = (job._replace(usage=usage) for job, usage in zip(jobs, usages, strict=True))
    return [job for job in updated if job.usage.exit_class], reason


def latest_jobs(jobs: Sequence[FinishedJob], since: float | None) -> list[FinishedJob]:
    """Return the jobs since a time, or those of the latest runs of each DAG.

    :param jobs: the newest first.
    :param since: in seconds since 1970.
    """
    if since is not None:
        return [job for job in jobs if job.moment >= since]
    runs: dict[str, set[str]] = {}
    kept = []
    for job in jobs:
        of_dag = runs.setdefault(job.run[0], set())
        if len(of_dag) < LAST_RUNS:
            of_dag.add(job.run[1])
        if job.run[1] in of_dag:
            kept.append(job)
    return kept


def _directories(folder: str) -> Iterator[JobDirectory]:
    for path, _, files in os.walk(folder):
        if "usage.json" in files:
            yield JobDirectory(path)


def _task_usage(usage: JobUsage, directory: JobDirectory) -> TaskUsage:
    fields = (usage.job_id, usage.name, directory.path, usage.started, usage.node, usage.exit_class)
    return TaskUsage(usage.used, usage.requested, *fields)


def _without_collection(directory: JobDirectory) -> JobUsage:
    """Return the usage of a job whose end no process has recorded: Airflow no longer waits for it, or has not yet."""
    exit_class = ""
    with suppress(OSError, ValueError):
        if (record := directory.read_exit()) is not None:
            exit_class = SUCCESS if record.is_success else "cancelled" if record.asked else "job_failed"
    return finished_usage(directory, exit_class)
