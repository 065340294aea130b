"""The options of ``sppe`` and what each of its commands calls."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_sewer import __version__
from airflow_provider_sewer.cli import signals
from airflow_provider_sewer.cli.say import say
from airflow_provider_sewer.cli.values import read_value
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.selection import selected
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.core.task import PLACES
from airflow_provider_sewer.readers.files import SCHEMA, load_tasks, load_workflow

if TYPE_CHECKING:
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.runners.slurm.task_run import SlurmJobs

_FILE = click.option("-p", "--path", required=True, type=click.Path(), help="The workflow file.")
_ARG = click.option(
    "--arg",
    "arguments",
    multiple=True,
    metavar="K=V",
    callback=lambda *given: _arguments(given[2]),
    help="Call the workflow with this argument; a value that is no JSON is text. Repeatable.",
)
_WORKFLOW = click.option("-w", "--workflow", help="The workflow, where the file holds several.")
_JOBS = click.option(
    "--jobs",
    metavar="MODULE",
    callback=lambda *given: _module(given[2]),
    help="For stages in YAML: the module that has their functions.",
)
_PYTHON = click.option(
    "-i", "--python-interpreter", "python", help="Interpreter of the tasks that name none. [default: python]"
)
_READER = click.option(
    "-i", "--python-interpreter", "python", help="What --read-with-interpreter reads with. [default: python]"
)
_ENV = click.option(
    "--env", multiple=True, metavar="K=V", help="Give a variable; K alone passes on your own. Repeatable."
)
_WORKDIR = click.option(
    "--workdir", type=click.Path(), help="Working directory of the tasks that name none. [default: here]"
)
_LIMIT = click.option(
    "--limit", multiple=True, metavar="R=N", help="Take no more than N of the resource R at once. Repeatable."
)
_THERE = click.option(
    "--read-with-interpreter",
    "there",
    is_flag=True,
    help="Have the file read by the interpreter of -i, with the variables of --env: it imports what only that has.",
)
_STATE = click.option("--state", type=click.Path(), help="The state file. [default: one below .sewer/state]")
_RESUME = click.option("--resume", is_flag=True, help="Run only what has not succeeded yet, and what comes after it.")
_FORCE = click.option("--force", multiple=True, metavar="TASK", help="Run this task in any case. Repeatable.")
_SELECT = click.option(
    "--select",
    multiple=True,
    metavar="TASKS",
    help="Only these: a name, a glob, tag:TAG, each with + or @ for what lies around; a comma is and. Repeatable.",
)
_ONLY = click.option("--only", multiple=True, metavar="TASK", help="Short for --select TASK. Repeatable.")
_FROM = click.option("--from", "start", multiple=True, metavar="TASK", help="Short for --select TASK+. Repeatable.")
_EXCLUDE = click.option("--exclude", multiple=True, metavar="TASKS", help="All but these, as for --select. Repeatable.")


class _Commands(click.Group):
    """Commands whose user's mistakes end with a sentence and exit code 2, never with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        _prepare_streams()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the system throws the exit codes of tasks away
        try:
            with signals.raised():
                return super().invoke(ctx)
        except SewerError as error:
            say(f"sppe: {error}")
            ctx.exit(2)
        except FileNotFoundError:
            with suppress(FileNotFoundError):
                os.getcwd()
                raise
            say("sppe: the folder this is run in no longer exists; cd to another one")
            ctx.exit(2)
        except signals.Received as received:
            ctx.exit(128 + received.number)
        except BrokenPipeError:
            ctx.exit(1)
        finally:
            _flush_streams()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sppe")
def main() -> None:
    """Run, show and convert workflows of Python modules.

    Exit codes: 0 all succeeded, 1 something failed, 2 nothing was run because the file or the command
    line is wrong, 130 and 143 after Ctrl-C and SIGTERM.
    """


@main.command()
@_FILE
@_PYTHON
@_THERE
@_WORKFLOW
@_ARG
@_JOBS
@click.option(
    "-j", "at_once", type=click.IntRange(min=1), help="Tasks at once. [default: number of processors; all jobs]"
)
@_LIMIT
@_RESUME
@_FORCE
@_SELECT
@_ONLY
@_FROM
@_EXCLUDE
@_STATE
@_ENV
@_WORKDIR
@click.option(
    "--on",
    default="local",
    type=click.Choice(PLACES),
    show_default=True,
    help="Run on this machine, or as Slurm jobs all tasks that do not say run_on='local'.",
)
@click.option(
    "--slurm", multiple=True, metavar="K=V", help="Ask Slurm for this where a task does not itself. Repeatable."
)
@click.option(
    "--run-dir", type=click.Path(), help="Folder for the files of jobs; all nodes see it. [default: ~/.sewer/runs]"
)
@click.option(
    "--ahead",
    is_flag=True,
    help="Submit jobs at once, with afterok on those before them; those wait that take products or results of others, "
    "or may be up to date.",
)
@click.option(
    "--log-dir", type=click.Path(), help="Folder for a log file of each task. [default: one below .sewer/logs]"
)
def run(
    path: str,
    python: str | None,
    there: bool,
    workflow: str | None,
    arguments: dict[str, Any],
    jobs: str | None,
    at_once: int | None,
    limit: tuple[str, ...],
    resume: bool,
    force: tuple[str, ...],
    select: tuple[str, ...],
    only: tuple[str, ...],
    start: tuple[str, ...],
    exclude: tuple[str, ...],
    state: str | None,
    env: tuple[str, ...],
    workdir: str | None,
    on: str,
    slurm: tuple[str, ...],
    run_dir: str | None,
    ahead: bool,
    log_dir: str | None,
) -> None:
    """Run a workflow, each task as soon as those before it have succeeded."""
    from airflow_provider_sewer.cli.run import How, run_in_terminal
    from airflow_provider_sewer.runners.plan import Wanted

    settings = Settings.checked(python=python, env=_variables(env), workdir=workdir, folder=os.getcwd())
    how = How(
        wanted=Wanted(_selection(select, only, start), exclude, force),
        resume=resume,
        state=state,
        jobs=at_once,
        limits=_limits(limit),
        log_dir=log_dir,
        slurm=_slurm(slurm, run_dir, is_wanted=on == "slurm", is_ahead=ahead),
    )
    loaded = _loaded(path, workflow, arguments, jobs, settings, there=there)
    sys.exit(run_in_terminal(loaded, settings, how))


@main.command()
@_FILE
@_PYTHON
@_THERE
@_WORKFLOW
@_ARG
@_JOBS
@_RESUME
@_FORCE
@_SELECT
@_ONLY
@_FROM
@_EXCLUDE
@_STATE
@_ENV
@_WORKDIR
def explain(
    path: str,
    python: str | None,
    there: bool,
    workflow: str | None,
    arguments: dict[str, Any],
    jobs: str | None,
    resume: bool,
    force: tuple[str, ...],
    select: tuple[str, ...],
    only: tuple[str, ...],
    start: tuple[str, ...],
    exclude: tuple[str, ...],
    state: str | None,
    env: tuple[str, ...],
    workdir: str | None,
) -> None:
    """Say of each task whether a run would run it, and why, without running anything."""
    from airflow_provider_sewer.cli.run import explained
    from airflow_provider_sewer.runners.plan import Wanted

    settings = Settings.checked(python=python, env=_variables(env), workdir=workdir, folder=os.getcwd())
    loaded = _loaded(path, workflow, arguments, jobs, settings, there=there)
    click.echo(
        explained(loaded, settings, Wanted(_selection(select, only, start), exclude, force), resume=resume, state=state)
    )


@main.command()
@_FILE
@_READER
@_THERE
@_ENV
@_WORKFLOW
@_ARG
@_JOBS
@click.option("--to", required=True, type=click.Choice(["vscode"]), expose_value=False, help="What to convert to.")
@click.option("-o", "--output", default=".vscode/launch.json", type=click.Path(), show_default=True)
@click.option("--print-only", is_flag=True, help="Print a whole new file instead of writing one.")
@click.option("--launch-json-version", default="0.2.0", show_default=True)
def convert(
    path: str,
    python: str | None,
    there: bool,
    env: tuple[str, ...],
    workflow: str | None,
    arguments: dict[str, Any],
    jobs: str | None,
    output: str,
    print_only: bool,
    launch_json_version: str,
) -> None:
    """Write debug configurations for all tasks of a file, or of one workflow; what else is in launch.json is kept."""
    from airflow_provider_sewer.exporters import vscode

    settings = _reader_settings(python, env, there=there)
    if workflow is not None or arguments:
        tasks = list(_loaded(path, workflow, arguments, jobs, settings, there=there).tasks.values())
    else:
        tasks = _loaded_tasks(path, jobs, settings, there=there)
    if print_only:
        click.echo(vscode.launch_json(tasks, launch_json_version), nl=False)
    else:
        vscode.write_launch_json(output, tasks, launch_json_version)
        click.echo(f"{len(tasks)} configurations are in {output}", err=True)


@main.command()
@_FILE
@_READER
@_THERE
@_ENV
@_WORKFLOW
@_ARG
@_JOBS
@_SELECT
@_EXCLUDE
@click.option("--format", "form", default="tree", type=click.Choice(["tree", "json", "mermaid"]), show_default=True)
def show(
    path: str,
    python: str | None,
    there: bool,
    env: tuple[str, ...],
    workflow: str | None,
    arguments: dict[str, Any],
    jobs: str | None,
    select: tuple[str, ...],
    exclude: tuple[str, ...],
    form: str,
) -> None:
    """Print the graph of a workflow without running anything."""
    from airflow_provider_sewer.exporters import diagram, plain

    forms = {"tree": diagram.to_tree, "json": plain.to_json, "mermaid": diagram.to_mermaid}
    loaded = _loaded(path, workflow, arguments, jobs, _reader_settings(python, env, there=there), there=there)
    click.echo(forms[form](selected(loaded, select, exclude)).rstrip("\n"))


@main.command()
def schema() -> None:
    """Print the JSON Schema of stages in YAML, by which editors complete and check them."""
    click.echo(SCHEMA.read_text(encoding="utf-8").rstrip("\n"))


@main.command()
@_FILE
@_WORKFLOW
@_ARG
@_JOBS
@_LIMIT
@click.option("--make", is_flag=True, help="Run what is printed, with the airflow that is on PATH.")
def pools(
    path: str,
    workflow: str | None,
    arguments: dict[str, Any],
    jobs: str | None,
    limit: tuple[str, ...],
    make: bool,
) -> None:
    """Print the commands that make Airflow's pools of the resources that tasks take."""
    import shlex

    from airflow_provider_sewer.cli.pools import make_pools, pool_commands

    commands = pool_commands(load_workflow(path, workflow, jobs=jobs, arguments=arguments), _limits(limit))
    for command in commands:
        click.echo(shlex.join(command))
    if make:
        make_pools(commands)


def _selection(select: tuple[str, ...], only: tuple[str, ...], start: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is to be selected, its two short forms written out."""
    return (*select, *only, *(f"{name}+" for name in start))


def _module(given: str | None) -> str | None:
    if given is not None and given.isdecimal():
        raise click.BadParameter(f"{given!r} names no module; for {given} tasks at once write -j {given}")
    return given


def _loaded(
    path: str, workflow: str | None, arguments: dict[str, Any], jobs: str | None, settings: Settings, *, there: bool
) -> Workflow:
    if not there:
        return load_workflow(path, workflow, jobs=jobs, arguments=arguments)
    _refuse_jobs(jobs)
    from airflow_provider_sewer.runners.foreign_reader import read_workflow

    return read_workflow(path, workflow, settings, arguments)


def _loaded_tasks(path: str, jobs: str | None, settings: Settings, *, there: bool) -> list[Task]:
    if not there:
        return load_tasks(path, jobs=jobs)
    _refuse_jobs(jobs)
    from airflow_provider_sewer.runners.foreign_reader import read_tasks

    return read_tasks(path, settings)


def _refuse_jobs(jobs: str | None) -> None:
    if jobs is not None:
        raise click.UsageError("--jobs is for stages in YAML, which import nothing; leave out --read-with-interpreter")


def _reader_settings(python: str | None, env: tuple[str, ...], *, there: bool) -> Settings:
    """Return what a file is read with by a command that runs nothing."""
    if not there and (python is not None or env):
        raise click.UsageError("-i and --env say what the file is read with; add --read-with-interpreter")
    return Settings.checked(python=python, env=_variables(env), folder=os.getcwd())


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
        if not name or not amount.isdecimal() or int(amount) < 1:
            raise click.BadParameter(f"{pair!r}: write NAME=NUMBER, such as gpu=2", param_hint="--limit")
        limits[name] = int(amount)
    return limits


def _slurm(pairs: tuple[str, ...], run_dir: str | None, *, is_wanted: bool, is_ahead: bool) -> SlurmJobs | None:
    if not is_wanted:
        for option, value in (("--slurm", pairs), ("--run-dir", run_dir), ("--ahead", is_ahead)):
            if value:
                raise click.UsageError(f"{option} says something of Slurm jobs; add --on slurm")
        return None
    from airflow_provider_sewer.cli.slurm import slurm_settings
    from airflow_provider_sewer.runners.slurm.task_run import SlurmJobs

    return SlurmJobs(slurm_settings(pairs, run_dir), ahead=is_ahead)


def _flush_streams() -> None:
    """Write out what is left; where nobody reads it any more, keep Python from failing over that when it shuts down."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _prepare_streams() -> None:
    """Make sure that there are standard streams, and that they take every text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Whoever started us has closed it. Else the first log file would get its number.
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
