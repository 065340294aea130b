"""Resources that a job requests, as numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Slurm's units of memory; without one it counts megabytes (sbatch, --mem).
_UNITS = {"K": 1 / 1024**2, "M": 1 / 1024, "G": 1.0, "T": 1024.0}


def request_of(slurm: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources of one node of a job: ``cpus``, ``mem_gb``, ``timeout_min``, ``gpus``.

    A resource that the settings leave to the cluster's defaults is omitted.

    :param slurm: Slurm parameters of a task.
    """
    tasks = slurm.get("tasks_per_node") or slurm.get("ntasks_per_node") or 1
    cpus = slurm.get("cpus_per_task")
    request: dict[str, float | None] = {
        "cpus": cpus * tasks if cpus else None,
        "mem_gb": _memory(slurm, cpus and cpus * tasks),
        "timeout_min": slurm.get("timeout_min") or _minutes(slurm.get("time")),
        "gpus": _gpus(slurm, tasks),
    }
    return {name: float(value) for name, value in request.items() if value}


def _memory(slurm: Mapping[str, Any], cpus: int | None) -> float | None:
    if slurm.get("mem_gb"):
        return float(slurm["mem_gb"])
    if slurm.get("mem"):
        return _gigabytes(slurm["mem"])
    return _gigabytes(slurm["mem_per_cpu"]) * cpus if slurm.get("mem_per_cpu") and cpus else None


def _gigabytes(text: Any) -> float:
    number, unit = re.fullmatch(r"(\d+)([KMGT]?)B?", str(text).upper()).groups()  # type: ignore[union-attr]  # validated
    return int(number) * _UNITS[unit or "M"]


def _minutes(time: Any) -> float | None:
    """Return minutes from sbatch's M, M:S, H:M:S, D-H, D-H:M or D-H:M:S; ``None`` for no limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(time))
    if found is None:
        return None
    days, *fields = found.groups()
    numbers = [int(field) for field in fields if field is not None]
    if days is None and fields[-1] is None:  # minutes come first
        numbers = [0, *numbers]
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds / 60


def _gpus(slurm: Mapping[str, Any], tasks: int) -> float | None:
    if slurm.get("gpus_per_node"):
        return _count(slurm["gpus_per_node"])
    return _count(slurm["gpus_per_task"]) * tasks if slurm.get("gpus_per_task") else None


def _count(gpus: Any) -> float:
    return float(str(gpus).rpartition(":")[2])
