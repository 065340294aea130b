"""Usage of a job that has ended, as its script has measured it; accounting is never queried for it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.trusted_files import read_own

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.job_directory import JobDirectory

#: Ticks a second in ``/proc/<pid>/stat``: USER_HZ, which is 100 on all platforms that Slurm supports.
_TICKS = 100
#: Limit on the values in a job's own usage record: the job can write anything.
_LARGEST_USAGE = float(2**63)


def usage_of(directory: JobDirectory) -> dict[str, float]:
    """Return the usage of the job in a job directory, as far as it is known.

    ``elapsed`` and ``cpu`` in seconds, ``cpu_efficiency`` from 0 to 1, ``max_rss`` in bytes.
    """
    known = read_usage(directory)
    if known.get("cpu") and known.get("cpus") and known.get("elapsed"):
        known["cpu_efficiency"] = round(known["cpu"] / (known["cpus"] * known["elapsed"]), 3)
    return {name: known[name] for name in ("elapsed", "cpu", "cpu_efficiency", "max_rss") if name in known}


def read_usage(directory: JobDirectory) -> dict[str, float]:
    """Return the usage that the script has measured.

    ``elapsed`` and ``cpu`` in seconds, ``cpus``, ``max_rss`` in bytes. An unknown field is omitted: on several
    nodes only ``elapsed`` and ``cpus`` are known.
    """
    usage: dict[str, float] = {}
    with suppress(OSError, ValueError, OverflowError):
        if record := directory.read_module_end():
            usage = {"elapsed": round(record.end - record.start, 3)} | ({"cpus": record.cpus} if record.cpus else {})
            usage |= _read_samples(directory)
            usage["cpu"] = max(usage.get("cpu", 0.0), _read_cpu_seconds(directory))
    return {name: value for name, value in usage.items() if 0 <= value < _LARGEST_USAGE}


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
