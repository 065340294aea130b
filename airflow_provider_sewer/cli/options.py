"""Command-line options that several commands share."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from airflow_provider_sewer.cli.help import FILE, META_FILE, PROCESS, TASKS, completed, is_given, option
from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.masking import masking_errors
from airflow_provider_sewer.core.secret_detection import secret_arguments
from airflow_provider_sewer.core.selection import From
from airflow_provider_sewer.core.trusted_files import parse_json
from airflow_provider_sewer.loaders.workflow_files import load_tasks, load_workflow

if TYPE_CHECKING:
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.plan import Selection

_AMOUNT = re.compile("0*[1-9][0-9]{0,8}")
_Command = Callable[..., Any]


def _take_file(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if META_FILE in ctx.meta:
        raise click.UsageError(f"the workflow file is given twice, as {ctx.meta[META_FILE]} and {value}", ctx)
    ctx.meta[META_FILE] = value


def take_file_of_run(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Find the settings of a workflow file that is given in place of a log folder beside it."""
    if value is not None and not os.path.isdir(value):
        ctx.meta[META_FILE] = value
    return value


def given_file() -> str | None:
    """Return the workflow file of the command line, if it has one."""
    return click.get_current_context().meta.get(META_FILE)


def workflow_file(command: _Command) -> _Command:
    """Add the workflow file, as an argument or as ``-p``; the command gets it as ``path``."""

    def read(**more: Any) -> Any:
        path = given_file()
        if path is None:
            raise click.UsageError("Missing argument 'FILE', the workflow file.", click.get_current_context())
        with masking_errors(secret_arguments(more.get("arguments", {}))):
            return command(path=path, **more)

    return optional_file(functools.wraps(command)(read))


def optional_file(command: _Command) -> _Command:
    """Add the workflow file, which the command reads with :func:`given_file`."""
    common: dict[str, Any] = {"type": click.Path(), "expose_value": False, "is_eager": True, "callback": _take_file}
    by_option = option("-p", "--path", group=FILE, **common, help="The workflow file; the same as FILE.")
    return click.argument("file", required=False, **common)(by_option(command))


WORKFLOW = option("-w", "--workflow", group=FILE, help="Name of the workflow, if the file defines several.")
ARGUMENTS = option(
    "--arg",
    "arguments",
    group=FILE,
    multiple=True,
    metavar="K=V",
    callback=lambda *args: _arguments(args[2]),
    help="Argument of the workflow function; a value that is not JSON is a string. Repeatable.",
)
JOBS = option(
    "--jobs",
    group=FILE,
    metavar="MODULE",
    callback=lambda *args: _module(args[2]),
    help="For stages in YAML: the module that defines their functions.",
)
LIMIT = option(
    "--limit",
    "limits",
    setting="limits",
    multiple=True,
    metavar="R=N",
    callback=lambda *args: _limits(completed(*args)),
    help="Use at most N of the resource R at once. Repeatable.",
)
SELECT = option(
    "--select",
    group=TASKS,
    multiple=True,
    metavar="TASKS",
    help="Only these tasks: a name, a glob or tag:TAG; + and @ add neighbours, a comma intersects. Repeatable.",
)
EXCLUDE = option(
    "--exclude",
    group=TASKS,
    multiple=True,
    metavar="TASKS",
    help="All tasks but these; syntax as for --select. Repeatable.",
)
_Option = Callable[[_Command], _Command]


def _env(group: str, text: str) -> _Option:
    """Return ``--env``."""
    return option(
        "--env",
        group=group,
        setting="env",
        multiple=True,
        metavar="K=V",
        callback=lambda *args: _variables(completed(*args)),
        help=f"{text}; K alone passes on the current value. Repeatable.",
    )


def _python(group: str, text: str) -> _Option:
    """Return ``-i``."""
    return option("-i", "--python-interpreter", "python", group=group, setting="python", help=text)


_EXTERNAL = option(
    "--read-with-interpreter",
    "external",
    group=FILE,
    is_flag=True,
    help="Load the file with the interpreter of -i and the variables of --env, for imports that only it has.",
)
_WORKDIR = option(
    "--workdir",
    group=PROCESS,
    setting="workdir",
    type=click.Path(),
    help="Working directory of tasks that set none. [default: current directory]",
)
_TASK_PYTHON = "Interpreter of tasks that set none."
_TASK_ENV = _env(PROCESS, "Environment variable")
_FILE_OPTIONS = (_EXTERNAL, WORKFLOW, ARGUMENTS, JOBS)
_SHOW_OPTIONS = (
    _python(FILE, "Interpreter for --read-with-interpreter. [default: python]"),
    *_FILE_OPTIONS,
    _env(FILE, "Environment variable for --read-with-interpreter"),
)
_CONVERT_OPTIONS = (
    _python(PROCESS, f"{_TASK_PYTHON} [default: the one that VS Code selects]"),
    *_FILE_OPTIONS,
    _TASK_ENV,
    _WORKDIR,
)
_RUN_OPTIONS = (
    _python(PROCESS, f"{_TASK_PYTHON} [default: python]"),
    *_FILE_OPTIONS,
    option(
        "--resume", group=TASKS, is_flag=True, help="Run only tasks that have not succeeded yet, and those downstream."
    ),
    option("--force", group=TASKS, multiple=True, metavar="TASK", help="Always run this task. Repeatable."),
    SELECT,
    option("--only", group=TASKS, multiple=True, metavar="TASK", help="Short for --select TASK. Repeatable."),
    option(
        "--from",
        "start",
        group=TASKS,
        multiple=True,
        metavar="TASK",
        help="This task and its downstream tasks. Repeatable.",
    ),
    EXCLUDE,
    option("--state", group=TASKS, type=click.Path(), help="State file. [default: one below .sewer/state]"),
    _TASK_ENV,
    option(
        "--inherit-env",
        "inherit",
        group=PROCESS,
        setting="inherit_env",
        multiple=True,
        metavar="[NAME…]",
        help="Pass these variables of the shell to tasks that set no inherit_env; without a name, all.",
    ),
    _WORKDIR,
)


class WorkflowFile(NamedTuple):
    """Workflow file and the way to load it.

    :param path: path of the file.
    :param name: name of the requested workflow.
    :param arguments: arguments of the workflow function.
    :param functions_module: module that defines the functions of its stages.
    :param external: load the file with another interpreter.
    :param settings: interpreter and environment of that.
    """

    path: str
    name: str | None
    arguments: dict[str, Any]
    functions_module: str | None
    external: bool
    settings: ExecutionSettings

    def workflow(self) -> Workflow:
        """Load the requested workflow.

        :raises SewerError: when the file, a task or the workflow is invalid.
        """
        if not self.external:
            workflow = load_workflow(self.path, self.name, jobs=self.functions_module, arguments=self.arguments)
        else:
            from airflow_provider_sewer.loaders.external.reader import read_workflow

            workflow = read_workflow(self.path, self.name, self.settings, self.arguments)
        _warn_of_secrets(workflow.tasks.values())
        for task in workflow.unused:
            problem = f"task {task.name!r} is in no workflow of the file"
            write_message(f"sppe: {task.source}: {problem}; add it to a .run(), or remove it")
        return workflow

    def tasks(self) -> list[Task]:
        """Load the tasks of the requested workflow, or else of the whole file.

        :raises SewerError: when the file, a task or a workflow is invalid.
        """
        if self.name is not None or self.arguments:
            return list(self.workflow().tasks.values())
        if not self.external:
            tasks = load_tasks(self.path, jobs=self.functions_module)
        else:
            from airflow_provider_sewer.loaders.external.reader import read_tasks

            tasks = read_tasks(self.path, self.settings)
        _warn_of_secrets(tasks)
        return tasks


class ConvertRequest(NamedTuple):
    """Request to convert the tasks of a workflow file.

    :param file: workflow file.
    :param settings: execution settings of tasks that have none.
    """

    file: WorkflowFile
    settings: ExecutionSettings

    def tasks(self) -> list[Task]:
        """Load the tasks, and complete their settings.

        :raises SewerError: when the file, a task or a workflow is invalid.
        """
        return [task.with_defaults(self.settings) for task in self.file.tasks()]


class RunRequest(NamedTuple):
    """Request to run or explain a workflow.

    :param file: workflow file.
    :param settings: execution settings of tasks that have none.
    :param selection: selected and forced tasks.
    :param resume: skip tasks that succeeded in the previous run.
    :param state: state file, if given.
    """

    file: WorkflowFile
    settings: ExecutionSettings
    selection: Selection
    resume: bool
    state: str | None


def file_options(command: _Command) -> _Command:
    """Add the options of a workflow file; the command gets a :class:`WorkflowFile` as its first argument."""

    def read(*, path: str, python: str | None, external: bool, **more: Any) -> Any:
        if not external and (is_given("python") or is_given("env")):
            raise click.UsageError("-i and --env require --read-with-interpreter")
        settings = ExecutionSettings.checked(python=python, env=more.pop("env"), folder=os.getcwd())
        return command(_file(path, settings, more, external=external), **more)

    return workflow_file(_with(_SHOW_OPTIONS, functools.wraps(command)(read)))


def convert_options(command: _Command) -> _Command:
    """Add the options of a conversion; the command gets a :class:`ConvertRequest` as its first argument."""

    def read(*, path: str, python: str | None, external: bool, **more: Any) -> Any:
        settings = ExecutionSettings.checked(
            python=python, env=more.pop("env"), workdir=more.pop("workdir"), folder=os.getcwd()
        )
        return command(ConvertRequest(_file(path, settings, more, external=external), settings), **more)

    return workflow_file(_with(_CONVERT_OPTIONS, functools.wraps(command)(read)))


def run_options(command: _Command) -> _Command:
    """Add the options of a run; the command gets a :class:`RunRequest` as its first argument."""

    def read(*, path: str, python: str | None, external: bool, **more: Any) -> Any:
        from airflow_provider_sewer.execution.plan import Selection

        settings = ExecutionSettings.checked(
            python=python,
            env=more.pop("env"),
            inherit_env=_inherited(more.pop("inherit")),
            workdir=more.pop("workdir"),
            folder=os.getcwd(),
        )
        file = _file(path, settings, more, external=external)
        select = (*more.pop("select"), *more.pop("only"), *map(From, more.pop("start")))
        selection = Selection(select or None, more.pop("exclude"), more.pop("force"))
        return command(RunRequest(file, settings, selection, more.pop("resume"), more.pop("state")), **more)

    return workflow_file(_with(_RUN_OPTIONS, functools.wraps(command)(read)))


def _file(path: str, settings: ExecutionSettings, more: dict[str, Any], *, external: bool) -> WorkflowFile:
    workflow, arguments, jobs = more.pop("workflow"), more.pop("arguments"), more.pop("jobs")
    if external and jobs is not None:
        raise click.UsageError("--jobs is for stages in YAML, which have no imports; leave out --read-with-interpreter")
    return WorkflowFile(path, workflow, arguments, jobs, external, settings)


def _warn_of_secrets(tasks: Iterable[Task]) -> None:
    for task in tasks:
        for message in task.exposed_secrets():
            write_message(f"sppe: {task.source}: {message}")


def _with(options: tuple[Callable[[_Command], _Command], ...], command: _Command) -> _Command:
    for add in reversed(options):
        command = add(command)
    return command


def _module(value: str | None) -> str | None:
    if value is not None and value.isdecimal():
        raise click.BadParameter(f"{value!r} is not a module name; for {value} concurrent tasks use -j {value}")
    return value


def _inherited(names: tuple[str, ...]) -> bool | tuple[str, ...] | None:
    return True if "*" in names else names or None


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or (not equals and name not in os.environ):
            message = f"{pair!r}: write NAME=VALUE, or the name of a variable that is set"
            raise click.BadParameter(message, param_hint="--env")
        variables[name] = value if equals else os.environ[name]
    return variables


def _arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            shown = f"{name}=…" if equals else pair
            raise click.BadParameter(f"{shown!r}: write NAME=VALUE, such as n=10", param_hint="--arg")
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


def read_value(text: str) -> Any:
    """Parse a value as JSON; a value that is not JSON is a string."""
    with suppress(ValueError):
        return parse_json(text)
    return text
