"""Advice on requests that a job has not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_sewer.execution.task_usage import TaskUsage

GIGABYTE = 1024.0**3
#: A request is too large if less than this part of it was used.
_SMALLEST_PART = 0.5
#: Smaller requests are accepted: gigabytes, and minutes.
_SMALL_MEMORY, _SHORT_TIME = 1.0, 30.0


def advice_for(usage: TaskUsage) -> Iterator[str]:
    """Yield a text for each request that is much larger than the usage of the job that has ended.

    :param usage: usage of the job and its request.
    """
    requested, used = usage.requested, usage.used
    memory, gigabytes = requested.get("mem_gb", 0.0), used.get("max_rss", 0.0) / GIGABYTE
    if memory >= _SMALL_MEMORY and 0 < gigabytes < memory * _SMALLEST_PART:
        yield f"mem_gb={memory:g} requested, {gigabytes:.2f} used"
    cpus, busy = requested.get("cpus", 1.0), busy_cpus(usage)
    if cpus > 1 and 0 < busy < cpus * _SMALLEST_PART:
        yield f"cpus_per_task={cpus:g} requested, {busy:.1f} used on average"
    limit, minutes = requested.get("timeout_min", 0.0), used.get("elapsed", 0.0) / 60
    if limit >= _SHORT_TIME and 0 < minutes < limit * _SMALLEST_PART:
        yield f"timeout_min={limit:g} requested, {minutes:.1f} used"


def busy_cpus(usage: TaskUsage) -> float:
    """Return the number of processors that were busy on average; 0 if it is not known."""
    elapsed = usage.used.get("elapsed", 0.0)
    return usage.used.get("cpu", 0.0) / elapsed if elapsed else 0.0
