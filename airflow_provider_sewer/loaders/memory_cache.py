"""In-memory cache of workflows, valid while the fingerprints of their files are unchanged.

A DAG file can expand one workflow file many times. The cache is used only if loading again gives the same workflow:
for stages in YAML, and for a self-contained Python file (see :mod:`airflow_provider_sewer.loaders.cacheability`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.cache_fingerprints import fingerprint, record_access, recording_access
from airflow_provider_sewer.core.recording import is_recording

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.core.workflow import Workflow

#: Size of the cache; the least recently used workflow is evicted.
_MOST = 16


class _CachedWorkflow:
    """Workflow with the fingerprints of its files.

    :param fingerprints: fingerprints of the files, recorded before they were read.
    :param is_sure: whether the workflow depends on these files only; ``None`` until that is checked.
    """

    def __init__(self, workflow: Workflow, fingerprints: dict[str, str], *, is_sure: bool | None) -> None:
        self.workflow = workflow
        self.fingerprints = fingerprints
        self.is_sure = is_sure

    def is_valid(self) -> bool:
        """Return whether all files are unchanged."""
        return all(fingerprint(path) == known for path, known in self.fingerprints.items())


_cache: dict[Any, _CachedWorkflow] = {}


def load_cached(file: str, key: Any, read: Callable[[], Workflow]) -> Workflow:
    """Return a workflow from the cache, or load it.

    All callers get the same object and must not change it.

    :param file: absolute path of the workflow file.
    :param key: further parts of the cache key.
    :param read: loads the workflow.
    """
    if is_recording():
        return read()  # its tasks become part of the workflow that is recorded
    try:
        key = (file, os.path.realpath(file), os.path.expanduser("~"), _working_directory(), key)
    except ValueError:
        return read()  # not a valid path, which `read` reports
    cached = _cache.pop(key, None)
    if cached is not None and not cached.is_valid():
        cached = None
    places: list[str] | None = []
    if cached is not None and cached.is_sure is None:
        places = _places(file)
        cached.is_sure = places is not None and cached.fingerprints.keys() >= set(places)
    if cached is not None and cached.is_sure:
        return _cache_workflow(key, cached)
    with recording_access() as fingerprints:
        for place in places or ():
            record_access(place)
        workflow = read()
    never = cached is not None and cached.is_sure is False and not places
    return _cache_workflow(key, _CachedWorkflow(workflow, fingerprints, is_sure=False if never else None))


def is_yaml(file: str | os.PathLike[str]) -> bool:
    """Return whether a workflow file has stages in YAML, so that no code is executed."""
    return os.path.splitext(file)[1].lower() in (".yaml", ".yml")


def _places(file: str) -> list[str] | None:
    """Return the other files that a workflow file depends on; ``None`` if they are unknown."""
    if is_yaml(file):
        return []
    from airflow_provider_sewer.loaders.cacheability import modules_beside

    return modules_beside(file)


def _cache_workflow(key: Any, cached: _CachedWorkflow) -> Workflow:
    _cache[key] = cached
    while len(_cache) > _MOST:
        del _cache[next(iter(_cache))]
    return cached.workflow


def _working_directory() -> str | None:
    with suppress(FileNotFoundError):
        return os.getcwd()
    return None
