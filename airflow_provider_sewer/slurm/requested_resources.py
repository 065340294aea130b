"""Resources that a job requests, as numbers."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.slurm_amounts import megabytes, minutes

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Number of devices, with so few digits that Slurm can store it.
_COUNT = re.compile(r"[0-9]{1,18}")


def request_of(slurm: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources of one node of a job: ``cpus``, ``mem_gb``, ``gpus``; and its ``timeout_min``.

    Likewise ``nodes`` and ``tasks`` of a node where there is more than one, and ``cpus_per_gpu``. A resource that the
    settings leave to the cluster's defaults is omitted.

    :param slurm: Slurm parameters of a task. Options of sbatch among ``additional_parameters`` count like the others.
    """
    options = {name.replace("-", "_"): value for name, value in (slurm.get("additional_parameters") or {}).items()}
    slurm = {**options, **slurm}
    nodes = _number(slurm.get("nodes")) or 1
    tasks = _number(slurm.get("tasks_per_node") or slurm.get("ntasks_per_node"))
    tasks = tasks or math.ceil((_number(slurm.get("ntasks")) or 1) / nodes)
    gpus = _gpus(slurm, nodes, tasks)
    cpus_per_gpu = _number(slurm.get("cpus_per_gpu"))
    cpus = (_number(slurm.get("cpus_per_task")) or 0) * tasks or (cpus_per_gpu or 0) * (gpus or 0) or None
    request: dict[str, float | None] = {
        "cpus": cpus,
        "mem_gb": _memory(slurm, cpus, gpus),
        "timeout_min": slurm.get("timeout_min") or minutes(slurm.get("time")),
        "gpus": gpus,
        "nodes": nodes if nodes > 1 else None,
        "tasks": tasks if tasks > 1 else None,
        "cpus_per_gpu": cpus_per_gpu,
    }
    return {name: float(value) for name, value in request.items() if value}


def _number(value: Any) -> int | None:
    """Return a count; ``None`` if there is none, or for another form, such as the range of nodes ``2-4``."""
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else None


def _memory(slurm: Mapping[str, Any], cpus: float | None, gpus: float | None) -> float | None:
    if slurm.get("mem_gb"):
        return float(slurm["mem_gb"])
    with suppress(ValueError):  # of an option that sbatch alone checks
        for name, count in (("mem", 1), ("mem_per_cpu", cpus), ("mem_per_gpu", gpus)):
            if slurm.get(name):
                return megabytes(slurm[name]) / 1024 * count if count else None
    return None


def _gpus(slurm: Mapping[str, Any], nodes: int, tasks: int) -> float | None:
    """Return the GPUs of one node."""
    gres = [part for part in str(slurm.get("gres") or "").split(",") if re.match(r"(gres[/:])?gpu(:|$)", part)]
    if slurm.get("gpus_per_node"):
        return _count(slurm["gpus_per_node"])
    if slurm.get("gpus_per_task"):
        return _count(slurm["gpus_per_task"]) * tasks
    if slurm.get("gpus"):
        return _count(slurm["gpus"]) / nodes
    return _count(",".join(gres)) if gres else None


def _count(gpus: Any) -> float:
    """Return the sum of counts by type, such as ``a100:2,v100:1``; a type without a count is one."""
    counts = (part.rpartition(":")[2] for part in str(gpus).split(","))
    return float(sum(int(count) if _COUNT.fullmatch(count) else 1 for count in counts))
