"""What a process has begun, written down so that another one can go on with it."""

from __future__ import annotations

from typing import Any

from airflow_provider_sewer.core.formats import JOB, JOB_EVENT
from airflow_provider_sewer.runners.slurm.arrays.place import Waiting
from airflow_provider_sewer.runners.slurm.clusters import cluster_of
from airflow_provider_sewer.runners.slurm.commands import SlurmCluster
from airflow_provider_sewer.runners.slurm.ending import Ending
from airflow_provider_sewer.runners.slurm.job import Job
from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory

#: Where the data are from, for messages.
_HERE = "the job in Airflow's database"


def job_to_data(job: Job | Waiting) -> dict[str, Any]:
    """Write down a job, or an attempt that is to become one."""
    if isinstance(job, Waiting):
        return JOB.packed([None, job.name, job.directory.path, job.cluster.kind, None])
    return job.to_data()


def end_to_data(job: Job | Waiting, ending: Ending) -> dict[str, Any]:
    """Write down a job and how it ended, for an event of its trigger."""
    return JOB_EVENT.written({"job": job_to_data(job), "ending": ending.to_data()})


def end_of(event: Any) -> tuple[Job | Waiting, Ending]:
    """Return what :func:`end_to_data` has written down.

    :raises UnreadableRecord: when another version has written it down.
    """
    where = "the event of the trigger"
    event = JOB_EVENT.read(where, event)
    with JOB_EVENT.reading(where):
        return job_from_data(event["job"]), Ending.of_data(event["ending"])


def job_from_data(data: Any) -> Job | Waiting:
    """Return what :func:`job_to_data` has written down.

    :raises UnreadableRecord: when another version has written it down.
    """
    job_id, name, path, cluster, submitted = JOB.values(JOB.read(_HERE, data))
    directory = RunDirectory(path)
    if job_id is None:
        return Waiting(directory, name, SlurmCluster())
    return Job.of(str(job_id), name, directory, cluster_of(cluster), float(submitted))
