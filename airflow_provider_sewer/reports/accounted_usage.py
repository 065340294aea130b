"""Usage from Slurm's accounting in place of the usage that jobs have measured themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_sewer.slurm.backend import JobRef, SlurmUnreachable
from airflow_provider_sewer.slurm.client import SlurmClient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.execution.run_record import RunRecord
    from airflow_provider_sewer.execution.task_usage import TaskUsage

_SLURM_ID = re.compile(r"\d+(_\d+)?")
#: Maximum number of jobs in one query: their ids are an argument, which has at most 128 KiB.
_MOST_IDS = 5000


def with_accounting(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], str]:
    """Return runs with the usage that accounting has of their jobs, and why it has none, if it should.

    Usage that accounting does not have stays. A job is known by its id, and by its job directory or its name.
    """
    jobs = list({_job_of(task.usage): None for run in runs for task in run.tasks.values() if task.ended})
    jobs = [job for job in jobs if _SLURM_ID.fullmatch(job.id)]
    client = SlurmClient()
    known: dict[JobRef, Mapping[str, float]] = {}
    try:
        for start in range(0, len(jobs), _MOST_IDS):
            known |= client.accounted_usage(jobs[start : start + _MOST_IDS])
    except SlurmUnreachable as error:
        return list(runs), f"accounting does not answer, so the usage is that which the jobs have measured: {error}"
    updated = []
    for run in runs:
        tasks = {
            name: task._replace(
                usage=task.usage._replace(used={**task.usage.used, **known.get(_job_of(task.usage), {})})
            )
            for name, task in run.tasks.items()
        }
        updated.append(run._replace(tasks=tasks))
    return updated, ""


def _job_of(usage: TaskUsage) -> JobRef:
    return JobRef(usage.job_id, usage.job_name, usage.directory)
