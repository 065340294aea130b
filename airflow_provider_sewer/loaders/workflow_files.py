"""Loader of workflow files in Python or YAML."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import SewerError, WorkflowFileError, unknown_name
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.workflow import DEFAULT_WORKFLOW
from airflow_provider_sewer.loaders import python_file
from airflow_provider_sewer.loaders.memory_cache import is_yaml, load_cached

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

    Workflows are cached in this process if loading the file again would give the same (see
    :mod:`airflow_provider_sewer.loaders.memory_cache`); then all callers get the same object and must not change it.

    :param path: Python file, or a file of stages with the suffix ``.yaml`` or ``.yml``.
    :param workflow: its name; needed only if the file defines several and none is called ``workflow``. A Python file
        without ``@workflow`` is one workflow of all its tasks.
    :param jobs: module that defines the functions of stages, unless the file sets one.
    :param arguments: arguments of the workflow function by parameter name.
    :raises SewerError: when the file, a task or the workflow is invalid; with file and line.
    """
    has_stages = _has_stages(path, jobs)

    def read() -> Workflow:
        if not has_stages:
            return python_file.load_workflow(path, workflow, arguments)
        from airflow_provider_sewer.loaders.stages.loader import load_stages

        if arguments:
            names = ", ".join(map(repr, arguments))
            raise SewerError(f"{os.fspath(path)}: stages take no arguments, got {names}; use a template")
        return load_stages(path, workflow, jobs)

    # Arguments are not part of the cache key: they can be any objects and mostly differ between calls.
    return read() if arguments else load_cached(os.path.abspath(path), (workflow, jobs), read)


def schema_of_stages() -> str:
    """Return the JSON Schema of stages in YAML."""
    with open(os.path.join(os.path.dirname(__file__), "stages", "stages.schema.json"), encoding="utf-8") as file:
        return file.read()


def load_tasks(path: str | os.PathLike[str], *, jobs: str | None = None) -> list[Task]:
    """Load a workflow file and return all its tasks: those of its workflows, then the others.

    :param jobs: as for :func:`load_workflow`.
    :raises SewerError: when the file, a task or a workflow is invalid; with file and line.
    """
    if _has_stages(path, jobs):
        from airflow_provider_sewer.loaders.stages.loader import load_stage_tasks

        return load_stage_tasks(path, jobs)
    return python_file.load_tasks(path)


def _has_stages(path: str | os.PathLike[str], jobs: str | None) -> bool:
    has_stages = is_yaml(path)
    if jobs is not None and not has_stages:
        message = (
            f"{os.fspath(path)}: jobs requires stages in YAML; in a Python file, set module or function of each task"
        )
        raise SewerError(message)
    return has_stages


def select_workflow(name: str | None, known: list[str], file: str) -> str:
    """Return the name of the requested, the only or the default workflow.

    :param name: requested name, if given.
    :param known: names of the workflows in the file.
    :raises WorkflowFileError: when the name is unknown, or is required and not given.
    """
    if name is None and len(known) == 1:
        return known[0]
    selected = DEFAULT_WORKFLOW if name is None else name
    if selected in known:
        return selected
    if name is None:
        message = f"the file defines several workflows; choose one: {', '.join(map(repr, known))}"
    else:
        message = unknown_name("workflow", name, known)
    raise WorkflowFileError(message, SourceLine(file, 0))
