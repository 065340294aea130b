"""Resources that a job requests, as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.slurm_amounts import megabytes, minutes

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        "timeout_min": slurm.get("timeout_min") or minutes(slurm.get("time")),
        "gpus": _gpus(slurm, tasks),
    }
    return {name: float(value) for name, value in request.items() if value}


def _memory(slurm: Mapping[str, Any], cpus: int | None) -> float | None:
    if slurm.get("mem_gb"):
        return float(slurm["mem_gb"])
    if slurm.get("mem"):
        return megabytes(slurm["mem"]) / 1024
    return megabytes(slurm["mem_per_cpu"]) / 1024 * cpus if slurm.get("mem_per_cpu") and cpus else None


def _gpus(slurm: Mapping[str, Any], tasks: int) -> float | None:
    if slurm.get("gpus_per_node"):
        return _count(slurm["gpus_per_node"])
    return _count(slurm["gpus_per_task"]) * tasks if slurm.get("gpus_per_task") else None


def _count(gpus: Any) -> float:
    return float(str(gpus).rpartition(":")[2])
