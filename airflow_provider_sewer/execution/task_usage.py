"""Resources that a task has used, and those that it requested, as far as they are known."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING: Mapping[str, float] = MappingProxyType({})


class TaskUsage(NamedTuple):
    """Usage of one attempt at a task.

    :param used: ``elapsed`` and ``cpu`` in seconds, ``max_rss`` in bytes, on one node; ``cpus``, the number of
        processors that a job was given on all nodes.
    :param requested: of a job: ``cpus``, ``mem_gb``, ``gpus`` and ``tasks`` of one node, ``nodes``, ``timeout_min``,
        ``cpus_per_gpu``.
    :param job_id: id of its job.
    :param job_name: name of its job.
    :param directory: job directory.
    :param started: when its job started, in seconds since 1970.
    :param node: the node that its job ran on; the first of several.
    :param exit_class: of a job: ``success`` or the key of an error; empty if that is not known.
    """

    used: Mapping[str, float] = _NOTHING
    requested: Mapping[str, float] = _NOTHING
    job_id: str = ""
    job_name: str = ""
    directory: str = ""
    started: float | None = None
    node: str = ""
    exit_class: str = ""


NO_USAGE = TaskUsage()
