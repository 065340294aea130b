"""Usage of ended jobs from Slurm's accounting, in batches; it is saved, so that each job is queried once."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SewerError, key_of
from airflow_provider_sewer.slurm.backend import JobRef, SlurmUnreachable
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_records import ACCOUNTED, SUCCESS, JobUsage
from airflow_provider_sewer.slurm.states import ENDED, TERMINAL_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_sewer.execution.task_usage import TaskUsage
    from airflow_provider_sewer.slurm.parsing import AccountedUsage

_SLURM_ID = re.compile(r"\d+(_\d+)?")
#: Maximum number of jobs in one query: their ids are an argument, which has at most 128 KiB.
_MOST_IDS = 5000


def with_accounting(usages: Sequence[TaskUsage]) -> tuple[list[TaskUsage], str]:
    """Return usages with the figures that accounting has of their jobs, and why there are none, if there should be.

    The larger of two figures of memory and CPU time counts, as both are samples. A job that accounting does not know
    keeps its usage. A job is known by its id, and by its job directory or its name.
    """
    jobs = [(usage, _recorded(usage)) for usage in usages]
    queried = [_ref(usage) for usage, recorded in jobs if recorded.source != ACCOUNTED]
    try:
        known = _query(dict.fromkeys(job for job in queried if _SLURM_ID.fullmatch(job.id)))
    except SlurmUnreachable as error:
        known, reason = {}, f"accounting does not answer, so the usage is that which the jobs have measured: {error}"
    else:
        reason = ""
    updated = []
    for usage, recorded in jobs:
        accounted = known.get(_ref(usage))
        final = recorded if accounted is None else _combined(recorded, accounted)
        if accounted is not None:
            _save(usage.directory, final)
        updated.append(final.update(usage))
    return updated, reason


def _ref(usage: TaskUsage) -> JobRef:
    return JobRef(usage.job_id, usage.job_name, usage.directory)


def _recorded(usage: TaskUsage) -> JobUsage:
    """Return the record in the job directory, or a new one, with the usage where the record has none."""
    saved = JobDirectory(usage.directory).read_usage() if usage.directory else None
    if saved is None or saved.name != usage.job_name:
        saved = JobUsage(usage.job_name, job_id=usage.job_id)
    return saved._replace(
        exit_class=saved.exit_class or usage.exit_class,
        node=saved.node or usage.node,
        requested=saved.requested or usage.requested,
        used=saved.used or usage.used,
    )


def _query(jobs: Iterable[JobRef]) -> Mapping[JobRef, AccountedUsage]:
    """Return the usage of those jobs that have ended."""
    client, listed = SlurmClient(), list(jobs)
    known: dict[JobRef, AccountedUsage] = {}
    for start in range(0, len(listed), _MOST_IDS):
        known |= client.accounted_usage(listed[start : start + _MOST_IDS])
    return {job: usage for job, usage in known.items() if usage.row.status.state in ENDED}


def _combined(usage: JobUsage, accounted: AccountedUsage) -> JobUsage:
    used = {**usage.used, **accounted.used}
    for name in ("cpu", "max_rss"):
        if figures := [each[name] for each in (usage.used, accounted.used) if name in each]:
            used[name] = max(figures)
    status, waited = accounted.row.status, None
    if accounted.submitted is not None and (until := accounted.started or accounted.ended) is not None:
        waited = max(0.0, until - accounted.submitted)
    state = TERMINAL_STATES.get(status.state)
    return usage._replace(
        exit_class=usage.exit_class or (key_of(state.error) if state else SUCCESS),
        node=usage.node or status.node,
        waited=waited if usage.waited is None else usage.waited,
        started=usage.started or accounted.started,
        ended=usage.ended or accounted.ended,
        requested={**accounted.allocated, **usage.requested},
        used=used,
        source=ACCOUNTED,
    )


def _save(path: str, usage: JobUsage) -> None:
    """Save the usage of a job in its job directory, if that is this user's own and has a record of it."""
    directory = JobDirectory(path)
    with suppress(OSError, SewerError):  # the record only helps
        if path and (saved := directory.read_usage()) is not None and saved.name == usage.name:
            directory.check_own()
            directory.write_usage(usage)
