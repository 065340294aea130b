"""What a process has begun, written down so that another one can go on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.runners.slurm.arrays.place import Waiting
from airflow_provider_sewer.runners.slurm.cluster import JobRef
from airflow_provider_sewer.runners.slurm.clusters import cluster_of
from airflow_provider_sewer.runners.slurm.commands import SlurmCluster
from airflow_provider_sewer.runners.slurm.job import Job
from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping


def job_to_data(job: Job | Waiting) -> dict[str, Any]:
    """Write down a job, or an attempt that is to become one."""
    if isinstance(job, Waiting):
        return {"id": None, "name": job.name, "directory": job.directory.path, "cluster": job.cluster.kind}
    return {**job.ref._asdict(), "cluster": job.cluster.kind, "submitted": job.submitted}


def job_from_data(data: Mapping[str, Any]) -> Job | Waiting:
    """Return what :func:`job_to_data` has written down."""
    directory = RunDirectory(data["directory"])
    if data["id"] is None:
        return Waiting(directory, data["name"], SlurmCluster())
    ref = JobRef(data["id"], data["name"], data["directory"])
    return Job(ref, directory, cluster_of(data["cluster"]), data["submitted"])
