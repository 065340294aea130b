"""What a job that has ended has used."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.runners.slurm.cluster import NoAnswer
from airflow_provider_sewer.runners.slurm.commands import SlurmCluster

if TYPE_CHECKING:
    from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory

#: Seconds for which what accounting says of a job that has ended is waited for, and between two questions.
_ACCOUNTED_WITHIN, _PAUSE = 5.0, 0.2


def usage_of(directory: RunDirectory) -> dict[str, float]:
    """Return what is known of what the job of a run directory has used.

    ``elapsed`` and ``cpu`` in seconds, ``cpu_efficiency`` from 0 to 1, ``max_rss`` in bytes.
    """
    known = directory.read_usage()
    noted = directory.read_job() or {}
    if noted.get("cluster") == "slurm":
        known |= _accounted(noted["id"])
    if known.get("cpu") and known.get("cpus") and known.get("elapsed"):
        known["cpu_efficiency"] = round(known["cpu"] / (known["cpus"] * known["elapsed"]), 3)
    return {name: known[name] for name in ("elapsed", "cpu", "cpu_efficiency", "max_rss") if name in known}


def _accounted(job_id: str) -> dict[str, float]:
    """Return what accounting has measured of a job, which it learns some moments after the job's end."""
    cluster = SlurmCluster()
    until = time.monotonic() + _ACCOUNTED_WITHIN
    with suppress(NoAnswer):
        while (usage := cluster.usage(job_id)) is None and time.monotonic() < until:
            time.sleep(_PAUSE)
        return usage or {}
    return {}
