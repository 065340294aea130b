"""Usage of each task over several jobs, and requests that would have been enough."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import SlurmOutOfMemory, SlurmTimeout, key_of
from airflow_provider_sewer.slurm.job_records import SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_sewer.execution.task_usage import TaskUsage
    from airflow_provider_sewer.reports.job_usages import FinishedJob

GIGABYTE = 1024.0**3
#: With fewer jobs, a suggestion is a guess.
FEW_JOBS = 5
OUT_OF_MEMORY, TIMEOUT = key_of(SlurmOutOfMemory), key_of(SlurmTimeout)
_HOUR = 3600.0
#: Resolution of durations in seconds.
_SHORTEST = 0.001
#: A suggestion is the largest usage times the first number, rounded up to a multiple of the second one.
_MARGIN = {"mem_gb": (1.25, 0.5), "timeout_min": (1.5, 5.0)}
#: It is at least this multiple of a request that was too small.
_GROWTH = 1.5


class Spread(NamedTuple):
    """Requested amount of the last job, and quantiles of the used amount; ``None`` if they are not known."""

    requested: float | None
    p50: float | None
    p95: float | None
    largest: float | None


class TaskSummary(NamedTuple):
    """Usage of a task, or of all instances of a mapped task, over its jobs.

    :param task: its name; of a mapped task, that without values.
    :param jobs: number of jobs.
    :param ends: number of jobs by exit class.
    :param memory: gigabytes of one node.
    :param cpus: busy processors of one node, on average.
    :param minutes: duration.
    :param gpus: requested GPUs of one node, whose usage is not measured.
    :param core_hours: requested and unused, on all nodes.
    :param gigabyte_hours: requested and unused, on all nodes.
    :param suggestion: Slurm parameters that would have been enough, for those requests that differ; with fewer
        processors always the memory, too.
    """

    task: str
    jobs: int
    ends: Counter[str]
    memory: Spread
    cpus: Spread
    minutes: Spread
    gpus: float | None
    core_hours: float
    gigabyte_hours: float
    suggestion: dict[str, float | int]

    @property
    def is_guess(self) -> bool:
        """Return whether there are few jobs to learn from."""
        return self.jobs < FEW_JOBS


def summarize(jobs: Iterable[FinishedJob]) -> list[TaskSummary]:
    """Return the usage of each task, in the order of the newest run.

    :param jobs: the jobs, the newest first.
    """
    usages: dict[str, list[TaskUsage]] = defaultdict(list)
    for job in jobs:
        usages[job.task].append(job.usage)
    return [_summary(task, of_task) for task, of_task in usages.items()]


def _summary(task: str, usages: Sequence[TaskUsage]) -> TaskSummary:
    memory = _spread(usages, "mem_gb", gigabytes_used)
    cpus = _spread(usages, "cpus", busy_cpus)
    minutes = _spread(usages, "timeout_min", _minutes)
    enough_cpus = _enough_cpus(cpus, usages)
    enough_memory = _enough("mem_gb", memory, usages, OUT_OF_MEMORY)
    if enough_memory is None and enough_cpus:  # the request may be one for each processor
        enough_memory = memory.requested
    suggested = {
        "mem_gb": enough_memory,
        "timeout_min": _enough("timeout_min", minutes, usages, TIMEOUT),
        **enough_cpus,
    }
    return TaskSummary(
        task,
        len(usages),
        Counter(usage.exit_class for usage in usages),
        memory,
        cpus,
        minutes,
        _last_request(usages, "gpus"),
        sum(map(_unused_core_hours, usages)),
        sum(map(_unused_gigabyte_hours, usages)),
        {name: _whole(amount) for name, amount in suggested.items() if amount is not None},
    )


# -- Figures of one job ------------------------------------------------------------------------------------------------


def gigabytes_used(usage: TaskUsage) -> float | None:
    """Return the gigabytes that a job used on one node."""
    return usage.used["max_rss"] / GIGABYTE if "max_rss" in usage.used else None


def busy_cpus(usage: TaskUsage) -> float | None:
    """Return the number of processors of one node that were busy on average."""
    seconds = usage.used.get("elapsed", 0.0) * _nodes(usage)
    return usage.used["cpu"] / seconds if seconds >= _SHORTEST and usage.used.get("cpu") else None


def _minutes(usage: TaskUsage) -> float | None:
    return usage.used["elapsed"] / 60 if "elapsed" in usage.used else None


def _nodes(usage: TaskUsage) -> float:
    return usage.requested.get("nodes", 1.0)


def _unused_core_hours(usage: TaskUsage) -> float:
    """Return the unused core-hours: of the processors that Slurm gave the job, else of those that it requested."""
    cpus = usage.used.get("cpus") or usage.requested.get("cpus", 0.0) * _nodes(usage)
    if not cpus or "cpu" not in usage.used:
        return 0.0
    return max(0.0, cpus * usage.used.get("elapsed", 0.0) - usage.used["cpu"]) / _HOUR


def _unused_gigabyte_hours(usage: TaskUsage) -> float:
    used, requested = gigabytes_used(usage), usage.requested.get("mem_gb")
    if used is None or requested is None:
        return 0.0
    return max(0.0, requested - used) * _nodes(usage) * usage.used.get("elapsed", 0.0) / _HOUR


# -- All jobs of a task ------------------------------------------------------------------------------------------------


def _spread(usages: Sequence[TaskUsage], request: str, figure: Callable[[TaskUsage], float | None]) -> Spread:
    """Return the request of the newest job that has one, and the quantiles of the usage.

    The quantiles are those of the jobs that succeeded, if there are any: others ended early. The largest is that of all
    jobs.
    """
    requested = _last_request(usages, request)
    figures = [(usage.exit_class == SUCCESS, amount) for usage in usages if (amount := figure(usage)) is not None]
    if not figures:
        return Spread(requested, None, None, None)
    used = [amount for is_success, amount in figures if is_success] or [amount for _, amount in figures]
    cuts = quantiles(used, n=20, method="inclusive") if len(used) > 1 else used * 19
    return Spread(requested, cuts[9], cuts[18], max(amount for _, amount in figures))


def _last_request(usages: Iterable[TaskUsage], name: str) -> float | None:
    return next((usage.requested[name] for usage in usages if name in usage.requested), None)


def _enough(name: str, spread: Spread, usages: Iterable[TaskUsage], failure: str) -> float | None:
    """Return a request that would have been enough, if it is smaller than the last one or that one was too small.

    :param failure: exit class of a job whose request was too small.
    """
    factor, step = _MARGIN[name]
    too_small = max((usage.requested.get(name, 0.0) for usage in usages if usage.exit_class == failure), default=0.0)
    least = _rounded_up(too_small * _GROWTH, step)
    enough = max(_rounded_up((spread.largest or 0.0) * factor, step), least)
    if not spread.requested or not enough:
        return None
    return enough if enough < spread.requested or least > spread.requested else None


def _enough_cpus(spread: Spread, usages: Sequence[TaskUsage]) -> dict[str, float]:
    """Return the parameter that would have been enough: for each of the tasks of a node, or for each of its GPUs."""
    newest = next((usage.requested for usage in usages if "cpus" in usage.requested), {})
    name = "cpus_per_gpu" if "cpus_per_gpu" in newest else "cpus_per_task"
    parts = newest.get("gpus", 1.0) if "cpus_per_gpu" in newest else newest.get("tasks", 1.0)
    if not spread.requested or not spread.largest:
        return {}
    enough = _rounded_up(spread.largest / parts, 1.0)
    return {name: enough} if enough < spread.requested / parts else {}


def _rounded_up(amount: float, step: float) -> float:
    return math.ceil(round(amount / step, 9)) * step


def _whole(amount: float) -> float | int:
    return int(amount) if amount == int(amount) else amount
