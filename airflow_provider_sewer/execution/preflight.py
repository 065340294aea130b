"""Look, before anything runs, whether the tasks of a workflow can run here, and will find what they need."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask, ModuleNotFound, SewerError
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.task import as_written
from airflow_provider_sewer.core.templates import find_template
from airflow_provider_sewer.core.values import Result, replace_placeholders
from airflow_provider_sewer.execution.interpreter import (
    check_workdir,
    find_interpreter,
    locate_interpreter,
    missing_modules,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.interpreter import Starter

_PATHS = frozenset({"PATH", "HOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV"})


class _RunLocation(NamedTuple):
    """Where tasks run, as far as finding modules usually depends on it; they are looked for together."""

    python: str
    workdir: str | None
    paths: tuple[tuple[str, str], ...]


class _Checked(NamedTuple):
    """A task, whether it is a first one, and its whole environment."""

    task: Task
    is_first: bool
    env: Mapping[str, str]


def resolve_settings(workflow: Workflow, settings: ExecutionSettings) -> Workflow:
    """Return a workflow as it is run here: paths that nothing is said of are taken from the current directory."""
    here = settings
    if any(task.products or task.dependencies for task in workflow.tasks.values()):
        here = settings.with_fallback(ExecutionSettings(workdir=os.getcwd()))
    return workflow.with_defaults(here)


def refuse_templates(workflow: Workflow) -> None:
    """Make sure that no value is known only to Airflow.

    :raises InvalidTask: naming the first that is.
    """
    for task in workflow.tasks.values():
        _refuse_unknown_number(task)
        settings = task.settings
        called = [task.target, task.parameters_and_flags, list(task.args), task.kwargs]
        paths = [path.path for path in (*task.products, *task.dependencies)]
        refuse_template(
            task, replace_placeholders(called, as_written), paths, settings.python, settings.env, settings.workdir
        )


def refuse_template(task: Task, *values: Any) -> None:
    """Make sure that no value of a task is known only to Airflow.

    :raises InvalidTask: naming the first that is.
    """
    if template := find_template(values):
        raise InvalidTask(
            f"task {task.name!r}: {template!r} is filled in only by Airflow; give a value to run it here",
            task.source,
        )


def check_surroundings(tasks: Iterable[tuple[Task, bool]], start: Starter | None = None) -> list[str]:
    """Check interpreter, working directory and module of every task.

    :param tasks: each task, and whether it is a first one: nothing runs before it that could make what
        it lacks.
    :param start: makes the processes that ask interpreters.
    :returns: what later tasks lack now.
    :raises SewerError: for the first thing that a first task lacks, with the task's line.
    """
    warnings: list[str] = []
    places: dict[_RunLocation, list[_Checked]] = defaultdict(list)
    found: dict[tuple[Any, ...], tuple[Mapping[str, str], _RunLocation]] = {}  # most tasks have the settings of others
    for task, is_first in tasks:
        settings = task.settings
        key = (settings.python, settings.workdir, settings.inherit_env, *settings.env.items())
        try:
            env, place = found[key] = found.get(key) or _found(settings)
            places[place].append(_Checked(task, is_first, env))
        except SewerError as error:
            _report(type(error), str(error), task, warnings, is_first=is_first)
    for place, there in places.items():
        try:
            lacking = _without_module(place, there, start)
        except InterpreterError as error:
            for each in there:
                _report(type(error), str(error), each.task, warnings, is_first=each.is_first)
            continue
        for task, is_first in lacking:
            module = _module(task)
            said = f"{place.python} has no module {module!r}{' to run' if task.function is None else ''}"
            fix = _in_workdir(task, module) or "install it there, correct the name, or name another interpreter"
            _report(ModuleNotFound, f"{said}; {fix}", task, warnings, is_first=is_first)
    return warnings


def _refuse_unknown_number(task: Task) -> None:
    if task.mapped_task is not None and not task.mapped_task.is_known_beforehand:
        result = next(each for each in task.mapped_task.values.values() if isinstance(each, Result))
        raise InvalidTask(
            f"task {task.name!r} is mapped over {result!r}, and how many tasks that will be only Airflow can wait for; "
            "map it over a list to run it here",
            task.source,
        )


def _found(settings: ExecutionSettings) -> tuple[Mapping[str, str], _RunLocation]:
    env = build_environment(settings.env, settings.inherit_env or False)
    python = locate_interpreter(settings.python)
    paths = {name: value for name, value in env.items() if name.startswith("PYTHON") or name in _PATHS}
    return env, _RunLocation(python, check_workdir(settings.workdir), tuple(sorted(paths.items())))


def _without_module(place: _RunLocation, there: list[_Checked], start: Starter | None) -> list[tuple[Task, bool]]:
    """Return the tasks whose modules are not there.

    :raises InterpreterError: when what is to run them is no interpreter.
    """
    asked_in = there[0].env
    missing = _missing(place, {_modules_of(checked.task) for checked in there}, asked_in, start)
    find_interpreter(place.python, asked_in, start)  # who has just answered is known
    # Not refused on the word of another environment: a start script may go by any variable.
    return [
        (task, is_first)
        for task, is_first, env in there
        if (wanted := _modules_of(task)) in missing and (env == asked_in or _missing(place, {wanted}, env, start))
    ]


def _module(task: Task) -> str:
    return task.target.partition(":")[0]


def _modules_of(task: Task) -> str:
    return _module(task) if task.function is None else f"{_module(task)}:"


def _missing(place: _RunLocation, modules: set[str], env: Mapping[str, str], start: Starter | None) -> list[str]:
    try:
        return missing_modules(place.python, sorted(modules), env, place.workdir, start)
    except (SewerError, ValueError):
        return []  # what cannot be told now shows when the task runs


def _in_workdir(task: Task, module: str) -> str | None:
    """Return what to do where a module lies by the workflow file, and so is found only while that is read."""
    folder = task.source.folder
    path = os.path.join(folder, *module.split("."))
    if not os.path.exists(f"{path}.py") and not os.path.isdir(path):
        return None
    return (
        f"it lies by the workflow file, in {folder}, where a module is found only by a task that runs there: give that "
        f"workdir='.', or env={{'PYTHONPATH': {folder!r}}}, or install the module"
    )


def _report(kind: type[SewerError], said: str, task: Task, warnings: list[str], *, is_first: bool) -> None:
    said = f"task {task.name!r}: {said}"
    if is_first:
        raise kind(said, task.source)
    warnings.append(f"{task.source}: {said}")
