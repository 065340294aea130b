"""Look, before anything runs, whether the tasks of a workflow will find what they need."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import ModuleMissing, SewerError
from airflow_provider_sewer.runners.interpreter import check_workdir, find_interpreter, missing_modules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.runners.interpreter import Starter


class _Place(NamedTuple):
    """Where tasks run. All that run in one place are looked for together."""

    python: str
    workdir: str | None
    env: tuple[tuple[str, str], ...]


def check_surroundings(tasks: Iterable[tuple[Task, bool]], start: Starter | None = None) -> list[str]:
    """Check interpreter, working directory and module of every task.

    :param tasks: each task, and whether it is a first one: nothing runs before it that could make what
        it lacks.
    :param start: makes the processes that ask interpreters.
    :returns: what later tasks lack now.
    :raises SewerError: for the first thing that a first task lacks, with the task's line.
    """
    warnings: list[str] = []
    places: dict[_Place, list[tuple[Task, bool]]] = defaultdict(list)
    for task, is_first in tasks:
        try:
            places[_place(task, start)].append((task, is_first))
        except SewerError as error:
            _report(type(error), str(error), task, warnings, is_first=is_first)
    for place, there in places.items():
        missing = _missing(place, {task.module for task, _ in there}, start)
        for task, is_first in there:
            if task.module in missing:
                said = f"{place.python} has no module {task.module!r} to run"
                fix = "install it there, correct the name, or name another interpreter"
                _report(ModuleMissing, f"{said}; {fix}", task, warnings, is_first=is_first)
    return warnings


def _place(task: Task, start: Starter | None) -> _Place:
    settings = task.settings
    env = build_environment(settings.env, settings.inherit_env or False)
    interpreter = find_interpreter(settings.python, env, start)
    return _Place(interpreter.path, check_workdir(settings.workdir), tuple(sorted(env.items())))


def _missing(place: _Place, modules: set[str], start: Starter | None) -> list[str]:
    try:
        return missing_modules(place.python, sorted(modules), dict(place.env), place.workdir, start)
    except (SewerError, ValueError):
        return []  # what cannot be told now shows when the task runs


def _report(kind: type[SewerError], said: str, task: Task, warnings: list[str], *, is_first: bool) -> None:
    said = f"task {task.name!r}: {said}"
    if is_first:
        raise kind(said, task.source)
    warnings.append(f"{task.source}: {said}")
