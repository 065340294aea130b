"""Which cluster a job is to run on: the Slurm that is here, or this machine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from airflow_provider_sewer.runners.slurm.commands import SlurmCluster, require_slurm
from airflow_provider_sewer.runners.slurm.local import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.runners.slurm.cluster import Cluster


def cluster_of(kind: str) -> Cluster:
    """Return the cluster of this kind, ``slurm`` or ``local``."""
    return LocalCluster() if kind == "local" else SlurmCluster()


def chosen_cluster(wanted: str, say: Callable[[str], None], clusters: Callable[[str], Cluster] = cluster_of) -> Cluster:
    """Return the cluster that is wanted; ``auto`` is Slurm where its commands are, else this machine.

    :raises SlurmUnavailable: when Slurm is wanted and its commands are not here.
    """
    if wanted == "auto":
        wanted = "slurm" if shutil.which("sbatch") else "local"
        if wanted == "local":
            say("There is no sbatch here, so the job runs on this machine (cluster='auto')")
    if wanted == "slurm":
        require_slurm()
    return clusters(wanted)
