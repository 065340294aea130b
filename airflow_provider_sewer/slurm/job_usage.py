"""Requested and used resources of a job, as its script has measured them; accounting is never queried for them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_sewer.core.trusted_files import read_own
from airflow_provider_sewer.slurm.job_records import JobUsage
from airflow_provider_sewer.slurm.requested_resources import request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_sewer.slurm.attempts import TaskInstance
    from airflow_provider_sewer.slurm.job_directory import JobDirectory

_Record = TypeVar("_Record")

#: Ticks a second in ``/proc/<pid>/stat``: USER_HZ, which is 100 on all platforms that Slurm supports.
_TICKS = 100
#: Limit on the values in a job's own usage record: the job can write anything.
_LARGEST_USAGE = float(2**63)


def planned_usage(instance: TaskInstance, name: str, slurm: Mapping[str, Any]) -> JobUsage:
    """Return the record of an attempt before its submission.

    :param name: the name of its job.
    :param slurm: its Slurm parameters.
    """
    return JobUsage(
        name, instance.dag_id, instance.run_id, instance.task_id, instance.map_index, requested=request_of(slurm)
    )


def finished_usage(directory: JobDirectory, exit_class: str, node: str = "", seen: float | None = None) -> JobUsage:
    """Return the usage of a job that has ended, as it has measured it itself.

    :param exit_class: see :class:`~airflow_provider_sewer.slurm.job_records.JobUsage`.
    :param node: the node that Slurm reports.
    :param seen: when its end was seen, for a job without an exit record.
    """
    planned = directory.read_usage() or JobUsage()
    job, record, start = _readable(directory.read_job), _readable(directory.read_module_end), directory.read_start()
    started = start.time if start else None
    ended = record.end if record else seen
    used = read_usage(directory)
    if "elapsed" not in used and started is not None and ended is not None and ended > started:
        used["elapsed"] = round(ended - started, 3)
    until = ended if started is None else started
    waited = None if job is None or until is None else round(max(0.0, until - job["submitted"]), 3)
    return planned._replace(
        job_id=planned.job_id if job is None else job["id"],
        exit_class=exit_class,
        node=(start.node if start else "") or node,
        waited=waited,
        started=started,
        ended=ended,
        used=used,
    )


def usage_for_xcom(usage: JobUsage) -> dict[str, Any]:
    """Return the usage of a job as users see it, as far as it is known."""
    used = dict(usage.used)
    if used.get("cpu") and used.get("cpus") and used.get("elapsed"):
        used["cpu_efficiency"] = round(used["cpu"] / (used["cpus"] * used["elapsed"]), 3)
    fields = ("elapsed", "cpu", "cpu_efficiency", "max_rss")
    return {
        **{name: used[name] for name in fields if name in used},
        "waited": usage.waited,
        "node": usage.node,
        "exit_class": usage.exit_class,
        "requested": dict(usage.requested),
    }


def read_usage(directory: JobDirectory) -> dict[str, float]:
    """Return the usage that the script has measured.

    ``elapsed`` and ``cpu`` in seconds, ``cpus``, the number of processors that Slurm has given it on all nodes,
    ``max_rss`` in bytes. An unknown field is omitted: on several nodes only ``elapsed`` and ``cpus`` are known, and
    only samples of a job without an exit record.
    """
    usage = _read_samples(directory)
    with suppress(OSError, ValueError, OverflowError):
        if record := directory.read_module_end():
            usage |= {"elapsed": round(record.end - record.start, 3)} | ({"cpus": record.cpus} if record.cpus else {})
            usage["cpu"] = max(usage.get("cpu", 0.0), _read_cpu_seconds(directory))
    return {name: value for name, value in usage.items() if 0 <= value < _LARGEST_USAGE}


def _readable(read: Callable[[], _Record | None]) -> _Record | None:
    """Return a record; ``None`` if there is none that can be read."""
    try:
        return read()
    except (OSError, ValueError):
        return None


def _read_samples(directory: JobDirectory) -> dict[str, float]:
    """Return the largest samples of CPU time and memory, without a line that was cut off by a kill."""
    with suppress(OSError, ValueError, IndexError, OverflowError):
        lines = read_own(directory.usage_samples).splitlines(keepends=True)
        samples = [[int(word) for word in line.split()] for line in lines if line.endswith(b"\n")]
        kibibytes, ticks = (max(sample[field] for sample in samples) for field in (0, 1))
        return {"max_rss": float(kibibytes * 1024), "cpu": ticks / _TICKS}
    return {}


def _read_cpu_seconds(directory: JobDirectory) -> float:
    """Return the CPU time of all processes that the script has run and waited for."""
    words = read_own(directory.cpu_times).decode("ascii").split()[2:4]  # the first two are the shell's own
    return sum(float(minutes) * 60 + float(rest) for minutes, rest in map(_minutes_and_seconds, words))


def _minutes_and_seconds(word: str) -> tuple[str, str]:
    """Split a time of bash's `times`, such as ``1m2.345s``."""
    minutes, _, rest = word.partition("m")
    return minutes, rest.rstrip("s").replace(",", ".")
