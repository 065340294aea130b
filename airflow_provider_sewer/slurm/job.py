"""One job that has been submitted: what it is known by, and how it is ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.core.formats import JOB
from airflow_provider_sewer.slurm.backend import CommandNotFound, JobRef, SlurmUnreachable
from airflow_provider_sewer.slurm.states import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob
    from airflow_provider_sewer.slurm.backend import JobBackend
    from airflow_provider_sewer.slurm.job_directory import JobDirectory


class Job(NamedTuple):
    """A job that has been submitted.

    :param ref: what it is known by.
    :param directory: its run directory.
    :param cluster: where it runs.
    :param submitted: when, in seconds since the epoch.
    """

    ref: JobRef
    directory: JobDirectory
    cluster: JobBackend
    submitted: float

    @classmethod
    def of(cls, job_id: str, name: str, directory: JobDirectory, cluster: JobBackend, submitted: float) -> Job:
        """Return a job by what is stored of it."""
        return cls(JobRef(job_id, name, directory.path), directory, cluster, submitted)

    def to_data(self) -> dict[str, Any]:
        """Return what is stored of it."""
        return JOB.packed([*self.ref, self.cluster.kind, self.submitted])

    def cancel(self, *, timeout: float) -> None:
        """Have it ended: by the cluster, and by the job script itself while nobody can reach the cluster.

        :param timeout: seconds that this may take.
        :raises NoAnswer: when the cluster was perhaps not reached; the job script sees to it then.
        """
        self.directory.try_to_cancel()
        self.cluster.cancel(self.ref, timeout=timeout)

    def __str__(self) -> str:
        return f"{'Slurm job' if self.cluster.kind == 'slurm' else 'local job'} {self.ref.id} ({self.ref.name})"


def cancel(job: Job | PendingJob, say: Callable[[str], None], *, timeout: float) -> None:
    """Have a job ended, or what waits to become one, and say so."""
    try:
        job.cancel(timeout=timeout)
        say(f"Cancelled {job}")
    except SlurmUnreachable as error:
        say(only_told(job, error))


def only_told(job: Job | PendingJob, error: SlurmUnreachable) -> str:
    """Say that a job whose cluster was not reached will end all the same."""
    return f"{job} is told to end by its run directory, within some seconds of running: {error}"


def has_said_how_it_ended(job: Job) -> bool:
    """Tell whether the record of a job's end is there, and there is nothing more to wait for."""
    try:
        record = job.directory.read_exit()
    except (OSError, ValueError):
        return False
    return record is not None and record.is_final


def has_ended(job: Job) -> bool:
    """Tell whether a job has ended, or is known to nobody."""
    try:
        sighting = job.cluster.poll([job.ref]).get(job.ref)
        if sighting is None:  # no answer of accounting
            return job.directory.read_exit() is not None
    except CommandNotFound as error:
        raise SlurmUnavailable(f"{job} cannot be looked for: {error}", job_id=job.ref.id) from None
    except (OSError, ValueError, SlurmUnreachable):
        return False
    return sighting.state in ENDED or not sighting.state
