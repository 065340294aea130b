"""Resources that a task has used, and those that it requested, as far as they are known."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING: Mapping[str, float] = MappingProxyType({})


class TaskUsage(NamedTuple):
    """Usage of one attempt at a task.

    :param used: ``elapsed`` and ``cpu`` in seconds, ``max_rss`` in bytes.
    :param requested: of a job: ``cpus``, ``mem_gb``, ``timeout_min``, ``gpus``.
    :param job_id: id of its job.
    :param job_name: name of its job.
    :param directory: job directory.
    :param started: when its job started, in seconds since 1970.
    """

    used: Mapping[str, float] = _NOTHING
    requested: Mapping[str, float] = _NOTHING
    job_id: str = ""
    job_name: str = ""
    directory: str = ""
    started: float | None = None


NO_USAGE = TaskUsage()
