"""Checks before a run: interpreters, working directories and modules of the tasks."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask, ModuleNotFound, SewerError
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.placeholders import Result, as_written, replace_placeholders
from airflow_provider_sewer.core.templates import find_template
from airflow_provider_sewer.execution.interpreter import (
    check_workdir,
    find_interpreter,
    locate_interpreter,
    missing_modules,
)
from airflow_provider_sewer.execution.module_errors import NO_MAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.interpreter import Starter

_PATHS = frozenset({"PATH", "HOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV"})


class _RunLocation(NamedTuple):
    """Settings that usually decide which modules are found; modules of tasks that share them are checked together."""

    python: str
    workdir: str | None
    paths: tuple[tuple[str, str], ...]


class _CheckedTask(NamedTuple):
    """A task, whether it has no upstream tasks, and its complete environment."""

    task: Task
    is_first: bool
    env: Mapping[str, str]


def resolve_settings(workflow: Workflow, settings: ExecutionSettings) -> Workflow:
    """Return a workflow with its settings resolved; without a workdir, paths are relative to the current directory."""
    defaults = settings
    if any(task.products or task.dependencies for task in workflow.tasks.values()):
        defaults = settings.with_fallback(ExecutionSettings(workdir=os.getcwd()))
    return workflow.with_defaults(defaults)


def reject_templates(workflow: Workflow) -> None:
    """Reject values that are known only to Airflow.

    :raises InvalidTask: naming the first one.
    """
    for task in workflow.tasks.values():
        reject_templates_in(task)


def reject_templates_in(task: Task) -> None:
    """Reject values of one task that are known only to Airflow.

    :raises InvalidTask: naming the first one.
    """
    _refuse_unknown_number(task)
    settings = task.settings
    called = [task.target, task.parameters_and_flags, list(task.args), task.kwargs]
    paths = [path.path for path in (*task.products, *task.dependencies)]
    reject_template(
        task, replace_placeholders(called, as_written), paths, settings.python, settings.env, settings.workdir
    )


def reject_template(task: Task, *values: Any) -> None:
    """Reject values of a task that are known only to Airflow.

    :raises InvalidTask: naming the first one.
    """
    if template := find_template(values):
        raise InvalidTask(
            f"task {task.name!r}: {template!r} is rendered only by Airflow; give a value to run it here",
            task.source,
        )


def check_interpreters(tasks: Iterable[tuple[Task, bool]], start: Starter | None = None) -> list[str]:
    """Check interpreter, working directory and module of every task.

    :param tasks: each task, and whether it is a first one, without upstream tasks that could install its module.
    :param start: creates the processes that query interpreters.
    :returns: warnings about the other tasks.
    :raises SewerError: for the first problem of a first task, with the task's line.
    """
    warnings: list[str] = []
    locations: dict[_RunLocation, list[_CheckedTask]] = defaultdict(list)
    found: dict[tuple[Any, ...], tuple[Mapping[str, str], _RunLocation]] = {}  # most tasks have the settings of others
    for task, is_first in tasks:
        settings = task.settings
        key = (settings.python, settings.workdir, settings.inherit_env, *settings.env.items())
        try:
            env, location = found[key] = found.get(key) or _found(settings)
            locations[location].append(_CheckedTask(task, is_first, env))
        except SewerError as error:
            _report(type(error), str(error), task, warnings, is_first=is_first)
    for location, checked_tasks in locations.items():
        try:
            lacking = _without_module(location, checked_tasks, start)
        except InterpreterError as error:
            for each in checked_tasks:
                _report(type(error), str(error), each.task, warnings, is_first=each.is_first)
            continue
        for task, is_first in lacking:
            _report(ModuleNotFound, _module_problem(task, location, start), task, warnings, is_first=is_first)
    return warnings


def _module_problem(task: Task, location: _RunLocation, start: Starter | None) -> str:
    """Return why the module of a task cannot be run, and the fix."""
    module = _module(task)
    env = build_environment(task.settings.env, task.settings.inherit_env or False)
    if task.function is None and not _missing(location, {f"{module}:"}, env, start):
        return NO_MAIN.format(module)
    problem = f"{location.python} has no module {module!r}{' to run' if task.function is None else ''}"
    fix = _in_workdir(task, module) or "install it there, correct the name, or name another interpreter"
    return f"{problem}; {fix}"


def _refuse_unknown_number(task: Task) -> None:
    if task.mapped_task is not None and not task.mapped_task.is_known_beforehand:
        result = next(each for each in task.mapped_task.values.values() if isinstance(each, Result))
        raise InvalidTask(
            f"task {task.name!r} is mapped over {result!r}, and only Airflow supports a number of tasks that is known "
            "at run time; map it over a list to run it here",
            task.source,
        )


def _found(settings: ExecutionSettings) -> tuple[Mapping[str, str], _RunLocation]:
    env = build_environment(settings.env, settings.inherit_env or False)
    python = locate_interpreter(settings.python)
    paths = {name: value for name, value in env.items() if name.startswith("PYTHON") or name in _PATHS}
    return env, _RunLocation(python, check_workdir(settings.workdir), tuple(sorted(paths.items())))


def _without_module(
    location: _RunLocation, checked_tasks: list[_CheckedTask], start: Starter | None
) -> list[tuple[Task, bool]]:
    """Return the tasks whose modules cannot be found.

    :raises InterpreterError: when the interpreter is not valid.
    """
    env_queried = checked_tasks[0].env
    missing = _missing(location, {_modules_of(checked.task) for checked in checked_tasks}, env_queried, start)
    find_interpreter(location.python, env_queried, start)  # cached if it has just answered
    # A task with another environment is checked in its own: a start script may depend on any variable.
    return [
        (task, is_first)
        for task, is_first, env in checked_tasks
        if (module := _modules_of(task)) in missing and (env == env_queried or _missing(location, {module}, env, start))
    ]


def _module(task: Task) -> str:
    return task.target.partition(":")[0]


def _modules_of(task: Task) -> str:
    return _module(task) if task.function is None else f"{_module(task)}:"


def _missing(location: _RunLocation, modules: set[str], env: Mapping[str, str], start: Starter | None) -> list[str]:
    try:
        return missing_modules(location.python, sorted(modules), env, location.workdir, start)
    except (SewerError, ValueError):
        return []  # if it is missing, the task will report it


def _in_workdir(task: Task, module: str) -> str | None:
    """Return the fix for a module beside the workflow file, which can be imported only while that is loaded."""
    folder = task.source.folder
    path = os.path.join(folder, *module.split("."))
    if not os.path.exists(f"{path}.py") and not os.path.isdir(path):
        return None
    return (
        f"it is beside the workflow file, in {folder}, where only a task that runs there finds it: set "
        f"workdir='.' or env={{'PYTHONPATH': {folder!r}}}, or install the module"
    )


def _report(kind: type[SewerError], problem: str, task: Task, warnings: list[str], *, is_first: bool) -> None:
    message = f"task {task.name!r}: {problem}"
    if is_first:
        raise kind(message, task.source)
    warnings.append(f"{task.source}: {message}")
