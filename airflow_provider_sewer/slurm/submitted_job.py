"""Serialization of a submitted job, so that another process can continue with it."""

from __future__ import annotations

from typing import Any

from airflow_provider_sewer.core.formats import JOB, JOB_EVENT
from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob
from airflow_provider_sewer.slurm.backend_choice import backend_of
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job import Job
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_result import JobResult

#: Source of the data, for messages.
_HERE = "the job in Airflow's database"


def job_to_data(job: Job | PendingJob) -> dict[str, Any]:
    """Return the data of a job, or of an attempt that is to become one."""
    if isinstance(job, PendingJob):
        return JOB.packed([None, job.name, job.directory.path, job.cluster.kind, None])
    return job.to_data()


def result_to_data(job: Job | PendingJob, result: JobResult) -> dict[str, Any]:
    """Return the data of a job and its result, for an event of its trigger."""
    return JOB_EVENT.written({"job": job_to_data(job), "ending": result.to_data()})


def result_from_data(event: Any) -> tuple[Job | PendingJob, JobResult]:
    """Return the job and the result in the data of :func:`end_to_data`.

    :raises UnreadableRecord: when another version has written them.
    """
    where = "the event of the trigger"
    event = JOB_EVENT.read(where, event)
    with JOB_EVENT.reading(where):
        return job_from_data(event["job"]), JobResult.of_data(event["ending"])


def job_from_data(data: Any) -> Job | PendingJob:
    """Return the job in the data of :func:`job_to_data`.

    :raises UnreadableRecord: when another version has written them.
    """
    job_id, name, path, cluster, submitted = JOB.values(JOB.read(_HERE, data))
    directory = JobDirectory(path)
    if job_id is None:
        return PendingJob(directory, name, SlurmClient())
    return Job.of(str(job_id), name, directory, backend_of(cluster), float(submitted))
