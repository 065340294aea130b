"""Look, before anything runs, whether the tasks of a workflow will find what they need."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import ModuleMissing, SewerError
from airflow_provider_sewer.runners.interpreter import check_workdir, find_interpreter, missing_modules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_sewer.core.task import Task


def check_surroundings(tasks: Iterable[tuple[Task, bool]]) -> list[str]:
    """Check interpreter, working directory and module of every task.

    :param tasks: each task, and whether it is a first one: nothing runs before it that could make what
        it lacks.
    :returns: what later tasks lack now.
    :raises SewerError: for the first thing that a first task lacks, with the task's line.
    """
    warnings: list[str] = []
    places: dict[tuple[object, ...], list[tuple[Task, bool]]] = defaultdict(list)
    for task, is_first in tasks:
        try:
            interpreter = find_interpreter(task.settings.python)
            workdir = check_workdir(task.settings.workdir)
            env = build_environment(task.settings.env, task.settings.inherit_env or False)
            places[interpreter.path, workdir, tuple(sorted(env.items()))].append((task, is_first))
        except SewerError as error:
            _report(type(error), str(error), task, is_first, warnings)
    for (python, workdir, env_items), there in places.items():
        missing = _missing(str(python), {task.module for task, _ in there}, dict(env_items), workdir)  # type: ignore[call-overload]
        for task, is_first in there:
            if task.module in missing:
                said = f"{python} has no module {task.module!r}; install it there, correct the name, or name another interpreter"
                _report(ModuleMissing, said, task, is_first, warnings)
    return warnings


def _missing(python: str, modules: set[str], env: dict[str, str], workdir: str | None) -> list[str]:
    try:
        return missing_modules(python, sorted(modules), env, workdir)
    except (OSError, ValueError, subprocess.SubprocessError):
        return []  # what cannot be told now shows when the task runs


def _report(kind: type[SewerError], said: str, task: Task, is_first: bool, warnings: list[str]) -> None:
    said = f"task {task.name!r}: {said}"
    if is_first:
        raise kind(said, task.source)
    warnings.append(f"{task.source}: {said}")


