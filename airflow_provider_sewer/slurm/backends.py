"""Which cluster a job is to run on: the Slurm that is here, or this machine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from airflow_provider_sewer.slurm.client import SlurmClient, require_slurm
from airflow_provider_sewer.slurm.local_backend import LocalBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.backend import JobBackend


def backend_of(kind: str) -> JobBackend:
    """Return the cluster of this kind, ``slurm`` or ``local``."""
    return LocalBackend() if kind == "local" else SlurmClient()


def get_backend(
    wanted: str, say: Callable[[str], None], clusters: Callable[[str], JobBackend] = backend_of
) -> JobBackend:
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
