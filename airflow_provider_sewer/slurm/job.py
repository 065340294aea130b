"""Submitted job: its identity, and its cancellation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.core.formats import JOB
from airflow_provider_sewer.execution.log_lines import WarningLine
from airflow_provider_sewer.slurm.backend import CommandNotFound, JobRef, SlurmUnreachable
from airflow_provider_sewer.slurm.states import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob
    from airflow_provider_sewer.slurm.backend import JobBackend
    from airflow_provider_sewer.slurm.job_directory import JobDirectory


class Job(NamedTuple):
    """Submitted job.

    :param ref: its identity.
    :param directory: its job directory.
    :param cluster: the backend that runs it.
    :param submitted: time of its submission, in seconds since the epoch.
    """

    ref: JobRef
    directory: JobDirectory
    cluster: JobBackend
    submitted: float

    @classmethod
    def of(cls, job_id: str, name: str, directory: JobDirectory, cluster: JobBackend, submitted: float) -> Job:
        """Return a job with its stored fields."""
        return cls(JobRef(job_id, name, directory.path), directory, cluster, submitted)

    def to_data(self) -> dict[str, Any]:
        """Return the data to store."""
        return JOB.packed([*self.ref, self.cluster.kind, self.submitted])

    def cancel(self, *, timeout: float) -> None:
        """Cancel it: through the cluster, and by the job script itself while the cluster is unreachable.

        :param timeout: seconds that this may take.
        :raises SlurmUnreachable: when the cluster may not have been reached; the job script then ends the job.
        """
        self.directory.try_to_cancel()
        self.cluster.cancel(self.ref, timeout=timeout)

    def __str__(self) -> str:
        return f"{'Slurm job' if self.cluster.kind == 'slurm' else 'local job'} {self.ref.id} ({self.ref.name})"


def cancel(job: Job | PendingJob, notify: Callable[[str], None], *, timeout: float) -> None:
    """Cancel a job, or an attempt that waits to become one, and log it."""
    try:
        job.cancel(timeout=timeout)
        notify(f"Cancelled {job}")
    except SlurmUnreachable as error:
        notify(cancelled_by_directory_line(job, error))


def cancelled_by_directory_line(job: Job | PendingJob, error: SlurmUnreachable) -> str:
    """Return the log line about a job that was cancelled through its job directory only."""
    return WarningLine(
        f"Cancelled {job} through its job directory only; it ends within some seconds of running: {error}"
    )


def has_final_record(job: Job) -> bool:
    """Return whether the final record of a job's end exists."""
    try:
        record = job.directory.read_exit()
    except (OSError, ValueError):
        return False
    return record is not None and record.is_final


def has_ended(job: Job) -> bool:
    """Return whether a job has ended, or is unknown."""
    try:
        status = job.cluster.poll([job.ref]).get(job.ref)
        if status is None:  # no answer of accounting
            return job.directory.read_exit() is not None
    except CommandNotFound as error:
        raise SlurmUnavailable(f"cannot look for {job}: {error}", job_id=job.ref.id) from None
    except (OSError, ValueError, SlurmUnreachable):
        return False
    return status.state in ENDED or not status.state
