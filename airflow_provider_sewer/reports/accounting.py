"""Usage from Slurm's accounting in place of the usage that jobs have measured themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_sewer.slurm.backend import SlurmUnreachable
from airflow_provider_sewer.slurm.client import SlurmClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.execution.run_record import RunRecord
    from airflow_provider_sewer.slurm.parsing import AccountedUsage

_SLURM_ID = re.compile(r"\d+(_\d+)?")
#: Maximum number of jobs in one query: their ids are an argument, which has at most 128 KiB.
_MOST_IDS = 5000


def with_accounting(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], str]:
    """Return runs with the usage that accounting has of their jobs, and why it has none, if it should.

    Usage that accounting does not have stays. A job is known by its id and its job directory.
    """
    ids = list(
        dict.fromkeys(
            task.usage.job_id
            for run in runs
            for task in run.tasks.values()
            if task.ended and _SLURM_ID.fullmatch(task.usage.job_id)
        )
    )
    client = SlurmClient()
    known: dict[str, AccountedUsage] = {}
    try:
        for start in range(0, len(ids), _MOST_IDS):
            known |= client.accounted_usage(ids[start : start + _MOST_IDS])
    except SlurmUnreachable as error:
        return list(runs), f"accounting does not answer, so the usage is that which the jobs have measured: {error}"
    updated = []
    for run in runs:
        tasks = dict(run.tasks)
        for name, task in run.tasks.items():
            account = known.get(task.usage.job_id)
            if account is not None and account.folder == task.usage.directory:
                used = {**task.usage.used, **account.used}
                tasks[name] = task._replace(usage=task.usage._replace(used=used))
        updated.append(run._replace(tasks=tasks))
    return updated, ""
