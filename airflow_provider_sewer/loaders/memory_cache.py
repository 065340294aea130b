"""Workflows that were read before in this process, kept for as long as all that they came of looks the same.

A DAG file can expand one workflow file many times. A second reading is left out only where it is sure to give the same:
for stages in YAML, and for a Python file that stands alone (see :mod:`airflow_provider_sewer.loaders.cacheability`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.file_fingerprints import fingerprint, record_access, recording_access
from airflow_provider_sewer.core.recording import is_recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.core.workflow import Workflow

#: How many workflows are kept; the one that was asked for longest ago makes room.
_MOST = 16


class _CachedWorkflow:
    """A workflow, and what it came of.

    :param looks: what the files looked like that it was read from, noted before they were read.
    :param is_sure: whether it came of nothing else; ``None`` while nobody has asked.
    """

    def __init__(self, workflow: Workflow, fingerprints: dict[str, str], *, is_sure: bool | None) -> None:
        self.workflow = workflow
        self.fingerprints = fingerprints
        self.is_sure = is_sure

    def holds(self) -> bool:
        """Tell whether nothing has changed that it was read from."""
        return all(fingerprint(path) == known for path, known in self.fingerprints.items())


_cache: dict[Any, _CachedWorkflow] = {}


def cached_or_read(file: str, key: Any, read: Callable[[], Workflow]) -> Workflow:
    """Return a workflow as it was read before, or read it.

    It is the same object for all who ask for it, and not to be changed.

    :param file: the absolute path of the workflow file.
    :param key: what else makes a difference.
    :param read: reads it.
    """
    if is_recording():
        return read()  # it becomes part of something else
    try:
        key = (file, os.path.realpath(file), os.path.expanduser("~"), _here(), key)
    except ValueError:
        return read()  # it is no path, as will be said
    kept = _cache.pop(key, None)
    if kept is not None and not kept.holds():
        kept = None
    places: list[str] | None = []
    if kept is not None and kept.is_sure is None:
        places = _places(file)
        kept.is_sure = places is not None and kept.fingerprints.keys() >= set(places)
    if kept is not None and kept.is_sure:
        return _cache_workflow(key, kept)
    with recording_access() as looks:
        for place in places or ():
            record_access(place)
        workflow = read()
    never = kept is not None and kept.is_sure is False and not places
    return _cache_workflow(key, _CachedWorkflow(workflow, looks, is_sure=False if never else None))


def is_yaml(file: str | os.PathLike[str]) -> bool:
    """Tell whether a workflow file holds stages, and so nothing that is executed."""
    return os.path.splitext(file)[1].lower() in (".yaml", ".yml")


def _places(file: str) -> list[str] | None:
    """Return what a file is read from besides itself; ``None`` if that cannot be told."""
    if is_yaml(file):
        return []
    from airflow_provider_sewer.loaders.cacheability import modules_beside

    return modules_beside(file)


def _cache_workflow(key: Any, kept: _CachedWorkflow) -> Workflow:
    _cache[key] = kept
    while len(_cache) > _MOST:
        del _cache[next(iter(_cache))]
    return kept.workflow


def _here() -> str | None:
    with suppress(FileNotFoundError):
        return os.getcwd()
    return None
