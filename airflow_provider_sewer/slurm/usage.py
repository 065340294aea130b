"""Usage of a job that has ended, as its script has measured it; accounting is never queried for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.job_directory import JobDirectory


def usage_of(directory: JobDirectory) -> dict[str, float]:
    """Return the usage of the job in a job directory, as far as it is known.

    ``elapsed`` and ``cpu`` in seconds, ``cpu_efficiency`` from 0 to 1, ``max_rss`` in bytes.
    """
    known = directory.read_usage()
    if known.get("cpu") and known.get("cpus") and known.get("elapsed"):
        known["cpu_efficiency"] = round(known["cpu"] / (known["cpus"] * known["elapsed"]), 3)
    return {name: known[name] for name in ("elapsed", "cpu", "cpu_efficiency", "max_rss") if name in known}
