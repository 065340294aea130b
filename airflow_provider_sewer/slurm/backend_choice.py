"""Selection of a job's backend: Slurm, or this machine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from airflow_provider_sewer.slurm.client import SlurmClient, require_slurm
from airflow_provider_sewer.slurm.local_backend import LocalBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.backend import JobBackend


def backend_of(kind: str) -> JobBackend:
    """Return the backend of this kind, ``slurm`` or ``local``."""
    return LocalBackend() if kind == "local" else SlurmClient()


def get_backend(
    kind: str, notify: Callable[[str], None], clusters: Callable[[str], JobBackend] = backend_of
) -> JobBackend:
    """Return the backend of this kind; ``auto`` is Slurm where its commands are, else this machine.

    :raises SlurmUnavailable: when Slurm is required and its commands are missing here.
    """
    if kind == "auto":
        kind = "slurm" if shutil.which("sbatch") else "local"
        if kind == "local":
            notify("Running the job on this machine: sbatch not found (cluster='auto')")
    if kind == "slurm":
        require_slurm()
    return clusters(kind)
