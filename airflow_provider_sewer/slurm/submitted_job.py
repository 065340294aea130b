"""What a process has begun, written down so that another one can go on with it."""

from __future__ import annotations

from typing import Any

from airflow_provider_sewer.core.formats import JOB, JOB_EVENT
from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob
from airflow_provider_sewer.slurm.backends import backend_of
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job import Job
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_result import JobResult

#: Where the data are from, for messages.
_HERE = "the job in Airflow's database"


def job_to_data(job: Job | PendingJob) -> dict[str, Any]:
    """Write down a job, or an attempt that is to become one."""
    if isinstance(job, PendingJob):
        return JOB.packed([None, job.name, job.directory.path, job.cluster.kind, None])
    return job.to_data()


def end_to_data(job: Job | PendingJob, ending: JobResult) -> dict[str, Any]:
    """Write down a job and how it ended, for an event of its trigger."""
    return JOB_EVENT.written({"job": job_to_data(job), "ending": ending.to_data()})


def end_of(event: Any) -> tuple[Job | PendingJob, JobResult]:
    """Return what :func:`end_to_data` has written down.

    :raises UnreadableRecord: when another version has written it down.
    """
    where = "the event of the trigger"
    event = JOB_EVENT.read(where, event)
    with JOB_EVENT.reading(where):
        return job_from_data(event["job"]), JobResult.of_data(event["ending"])


def job_from_data(data: Any) -> Job | PendingJob:
    """Return what :func:`job_to_data` has written down.

    :raises UnreadableRecord: when another version has written it down.
    """
    job_id, name, path, cluster, submitted = JOB.values(JOB.read(_HERE, data))
    directory = JobDirectory(path)
    if job_id is None:
        return PendingJob(directory, name, SlurmClient())
    return Job.of(str(job_id), name, directory, backend_of(cluster), float(submitted))
