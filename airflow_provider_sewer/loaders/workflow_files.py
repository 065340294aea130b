"""Workflow files of any kind → workflows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.loaders import python_file
from airflow_provider_sewer.loaders.memory_cache import cached_or_read, is_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow


def load_workflow(
    path: str | os.PathLike[str],
    workflow: str | None = None,
    *,
    jobs: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Workflow:
    """Load a workflow file and return one of its workflows as a graph.

    A file that was loaded before in this process is not loaded again where it is sure to give the same (see
    :mod:`airflow_provider_sewer.loaders.memory_cache`); the graph is then the same object, and not to be changed.

    :param path: a sewer file in Python, or stages in a file that ends in ``.yaml`` or ``.yml``.
    :param workflow: its name; needed only where a file holds several and none is called
        ``workflow``. A file that declares none is one workflow: all its tasks.
    :param jobs: for stages: the module that has their functions, if the file names none.
    :param arguments: what the workflow's function is called with, by the names of its parameters.
    :raises SewerError: when the file, a task or the workflow is wrong; with file and line.
    """
    has_stages = _has_stages(path, jobs)

    def read() -> Workflow:
        if not has_stages:
            return python_file.load_workflow(path, workflow, arguments)
        from airflow_provider_sewer.loaders.stages.loader import load_stages

        if arguments:
            names = ", ".join(map(repr, arguments))
            raise SewerError(f"{os.fspath(path)}: stages take no arguments, and {names} is given; write a template")
        return load_stages(path, workflow, jobs)

    # What a workflow is called with can be anything, and is another thing each time.
    return read() if arguments else cached_or_read(os.path.abspath(path), (workflow, jobs), read)


def schema_of_stages() -> str:
    """Return the JSON Schema of stages in YAML."""
    with open(os.path.join(os.path.dirname(__file__), "stages", "stages.schema.json"), encoding="utf-8") as file:
        return file.read()


def load_tasks(path: str | os.PathLike[str], *, jobs: str | None = None) -> list[Task]:
    """Load a workflow file and return all its tasks: as its workflows run them, then those that none runs.

    :param jobs: as for :func:`load_workflow`.
    :raises SewerError: when the file, a task or a workflow is wrong; with file and line.
    """
    if _has_stages(path, jobs):
        from airflow_provider_sewer.loaders.stages.loader import load_stage_tasks

        return load_stage_tasks(path, jobs)
    return python_file.load_tasks(path)


def _has_stages(path: str | os.PathLike[str], jobs: str | None) -> bool:
    has_stages = is_yaml(path)
    if jobs is not None and not has_stages:
        said = f"{os.fspath(path)}: a jobs module is for stages in YAML; in a Python file each task names what it runs"
        raise SewerError(said)
    return has_stages
