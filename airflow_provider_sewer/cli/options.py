"""What can be said on the command line of several commands, read into what these work with."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from airflow_provider_sewer.cli.say import say
from airflow_provider_sewer.cli.values import read_value
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.selection import From
from airflow_provider_sewer.loaders.workflow_files import load_tasks, load_workflow

if TYPE_CHECKING:
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.plan import Selection

_AMOUNT = re.compile("0*[1-9][0-9]{0,8}")
_Command = Callable[..., Any]

FILE = click.option("-p", "--path", required=True, type=click.Path(), help="The workflow file.")
WORKFLOW = click.option("-w", "--workflow", help="The workflow, where the file holds several.")
ARGUMENTS = click.option(
    "--arg",
    "arguments",
    multiple=True,
    metavar="K=V",
    callback=lambda *given: _arguments(given[2]),
    help="Call the workflow with this argument; a value that is no JSON is text. Repeatable.",
)
JOBS = click.option(
    "--jobs",
    metavar="MODULE",
    callback=lambda *given: _module(given[2]),
    help="For stages in YAML: the module that has their functions.",
)
LIMIT = click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="R=N",
    callback=lambda *given: _limits(given[2]),
    help="Take no more than N of the resource R at once. Repeatable.",
)
SELECT = click.option(
    "--select",
    multiple=True,
    metavar="TASKS",
    help="Only these: a name, a glob, tag:TAG, each with + or @ for what lies around; a comma is and. Repeatable.",
)
EXCLUDE = click.option("--exclude", multiple=True, metavar="TASKS", help="All but these, as for --select. Repeatable.")
_ENV = click.option(
    "--env",
    multiple=True,
    metavar="K=V",
    callback=lambda *given: _variables(given[2]),
    help="Give a variable; K alone passes on your own. Repeatable.",
)
_THERE = click.option(
    "--read-with-interpreter",
    "there",
    is_flag=True,
    help="Have the file read by the interpreter of -i, with the variables of --env: it imports what only that has.",
)
_FILE_OPTIONS = (
    FILE,
    click.option(
        "-i", "--python-interpreter", "python", help="What --read-with-interpreter reads with. [default: python]"
    ),
    _THERE,
    _ENV,
    WORKFLOW,
    ARGUMENTS,
    JOBS,
)
_RUN_OPTIONS = (
    FILE,
    click.option(
        "-i", "--python-interpreter", "python", help="Interpreter of the tasks that name none. [default: python]"
    ),
    _THERE,
    WORKFLOW,
    ARGUMENTS,
    JOBS,
    click.option("--resume", is_flag=True, help="Run only what has not succeeded yet, and what comes after it."),
    click.option("--force", multiple=True, metavar="TASK", help="Run this task in any case. Repeatable."),
    SELECT,
    click.option("--only", multiple=True, metavar="TASK", help="Short for --select TASK. Repeatable."),
    click.option(
        "--from", "start", multiple=True, metavar="TASK", help="This task and what lies after it. Repeatable."
    ),
    EXCLUDE,
    click.option("--state", type=click.Path(), help="The state file. [default: one below .sewer/state]"),
    _ENV,
    click.option("--workdir", type=click.Path(), help="Working directory of the tasks that name none. [default: here]"),
)


class WorkflowFile(NamedTuple):
    """A workflow file, and how it is read.

    :param path: where it is.
    :param name: the name of the workflow in it that is meant.
    :param arguments: what that is called with.
    :param jobs: the module that has the functions of its stages.
    :param there: whether an interpreter other than this one reads it.
    :param settings: which one, and with what.
    """

    path: str
    name: str | None
    arguments: dict[str, Any]
    functions_module: str | None
    external: bool
    settings: ExecutionSettings

    def workflow(self) -> Workflow:
        """Read the workflow that is meant.

        :raises SewerError: when the file, a task or the workflow is wrong.
        """
        if not self.external:
            workflow = load_workflow(self.path, self.name, jobs=self.functions_module, arguments=self.arguments)
        else:
            from airflow_provider_sewer.loaders.external.client import read_workflow

            workflow = read_workflow(self.path, self.name, self.settings, self.arguments)
        _warn_of_secrets(workflow.tasks.values())
        return workflow

    def tasks(self) -> list[Task]:
        """Read the tasks of the workflow that is meant, or else of all the file.

        :raises SewerError: when the file, a task or a workflow is wrong.
        """
        if self.name is not None or self.arguments:
            return list(self.workflow().tasks.values())
        if not self.external:
            tasks = load_tasks(self.path, jobs=self.functions_module)
        else:
            from airflow_provider_sewer.loaders.external.client import read_tasks

            tasks = read_tasks(self.path, self.settings)
        _warn_of_secrets(tasks)
        return tasks


class RunRequest(NamedTuple):
    """What a person wants to be run, or to be told of.

    :param file: the workflow.
    :param settings: where its tasks run, as far as they do not say so themselves.
    :param wanted: which of them.
    :param resume: leave out what has succeeded in the run before.
    :param state: the state file, if it is named.
    """

    file: WorkflowFile
    settings: ExecutionSettings
    selection: Selection
    resume: bool
    state: str | None


def file_options(command: _Command) -> _Command:
    """Give a command that runs nothing the options of a :class:`File`, as its first argument."""

    def read(*, path: str, python: str | None, there: bool, **more: Any) -> Any:
        if not there and (python is not None or more["env"]):
            raise click.UsageError("-i and --env say what the file is read with; add --read-with-interpreter")
        settings = ExecutionSettings.checked(python=python, env=more.pop("env"), folder=os.getcwd())
        return command(_file(path, settings, more, there=there), **more)

    return _with(_FILE_OPTIONS, functools.wraps(command)(read))


def run_options(command: _Command) -> _Command:
    """Give a command that is about a run the options of what is :class:`Asked`, as its first argument."""

    def read(*, path: str, python: str | None, there: bool, **more: Any) -> Any:
        from airflow_provider_sewer.execution.plan import Selection

        settings = ExecutionSettings.checked(
            python=python, env=more.pop("env"), workdir=more.pop("workdir"), folder=os.getcwd()
        )
        file = _file(path, settings, more, there=there)
        select = (*more.pop("select"), *more.pop("only"), *map(From, more.pop("start")))
        wanted = Selection(select or None, more.pop("exclude"), more.pop("force"))
        return command(RunRequest(file, settings, wanted, more.pop("resume"), more.pop("state")), **more)

    return _with(_RUN_OPTIONS, functools.wraps(command)(read))


def _file(path: str, settings: ExecutionSettings, more: dict[str, Any], *, there: bool) -> WorkflowFile:
    workflow, arguments, jobs = more.pop("workflow"), more.pop("arguments"), more.pop("jobs")
    if there and jobs is not None:
        raise click.UsageError("--jobs is for stages in YAML, which import nothing; leave out --read-with-interpreter")
    return WorkflowFile(path, workflow, arguments, jobs, there, settings)


def _warn_of_secrets(tasks: Iterable[Task]) -> None:
    for task in tasks:
        for what in task.exposed_secrets():
            say(f"sppe: {task.source}: {what}")


def _with(options: tuple[Callable[[_Command], _Command], ...], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def _module(given: str | None) -> str | None:
    if given is not None and given.isdecimal():
        raise click.BadParameter(f"{given!r} names no module; for {given} tasks at once write -j {given}")
    return given


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or (not equals and name not in os.environ):
            said = f"{pair!r}: write NAME=VALUE, or the name of a variable that is set here"
            raise click.BadParameter(said, param_hint="--env")
        variables[name] = value if equals else os.environ[name]
    return variables


def _arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{pair!r}: write NAME=VALUE, such as n=10", param_hint="--arg")
        arguments[name] = read_value(value)
    return arguments


def _limits(pairs: tuple[str, ...]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for pair in pairs:
        name, _, amount = pair.rpartition("=")
        if not name or not _AMOUNT.fullmatch(amount):
            raise click.BadParameter(f"{pair!r}: write NAME=NUMBER, such as gpu=2", param_hint="--limit")
        limits[name] = int(amount)
    return limits
