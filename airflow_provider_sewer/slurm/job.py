"""Submitted job, and attempt that is to become an array task: identity, data to store, and state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.core.formats import JOB
from airflow_provider_sewer.slurm.backend import CommandNotFound, JobRef, SlurmUnreachable
from airflow_provider_sewer.slurm.backend_choice import backend_of
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.states import ENDED

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.backend import JobBackend


class PendingJob(NamedTuple):
    """Attempt that waits to become an array task.

    :param directory: its job directory.
    :param name: its name.
    :param cluster: the client of its cluster.
    """

    directory: JobDirectory
    name: str
    cluster: SlurmClient

    def to_dict(self) -> dict[str, Any]:
        """Return the data to store."""
        fields = {"id": None, "name": self.name, "directory": self.directory.path}
        return JOB.written({**fields, "cluster": self.cluster.kind, "submitted": None})

    def __str__(self) -> str:
        return f"{self.name} (waiting for its array)"


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

    def to_dict(self) -> dict[str, Any]:
        """Return the data to store: in the job directory, in the trigger, its event, and Airflow's task state store."""
        fields = {"id": self.ref.id, "name": self.ref.name, "directory": self.directory.path}
        return JOB.written({**fields, "cluster": self.cluster.kind, "submitted": self.submitted})

    @classmethod
    def from_dict(cls, data: Any) -> Job | PendingJob:
        """Return the job, or the attempt that is to become one, from its data in Airflow's database.

        :raises UnreadableRecord: when another version has written it.
        """
        record = JOB.read("the job in Airflow's database", data)
        directory = JobDirectory(record["directory"])
        if record["id"] is None:
            return PendingJob(directory, record["name"], SlurmClient())
        cluster = backend_of(record["cluster"])
        return cls.of(str(record["id"]), record["name"], directory, cluster, float(record["submitted"]))

    def __str__(self) -> str:
        return f"{'Slurm job' if self.cluster.kind == 'slurm' else 'local job'} {self.ref.id} ({self.ref.name})"


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
