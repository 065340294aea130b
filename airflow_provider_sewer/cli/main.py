"""Commands of ``sppe``."""

from __future__ import annotations

import gc
import io
import os
import shlex
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_sewer import __version__
from airflow_provider_sewer.cli import signals
from airflow_provider_sewer.cli.argo_manifest import argo_options
from airflow_provider_sewer.cli.colors import set_color
from airflow_provider_sewer.cli.help import ARGO, OUTPUT, SLURM, Command, completed, is_given, option
from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.cli.options import (
    ARGUMENTS,
    EXCLUDE,
    JOBS,
    LIMIT,
    SELECT,
    WORKFLOW,
    ConvertRequest,
    RunRequest,
    WorkflowFile,
    convert_options,
    file_options,
    given_file,
    optional_file,
    run_options,
    take_file_of_run,
    workflow_file,
)
from airflow_provider_sewer.core.errors import SewerError, with_short_values
from airflow_provider_sewer.core.selection import selected
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.task_fields import RUN_ON
from airflow_provider_sewer.execution.import_guard import refuse_during_import
from airflow_provider_sewer.loaders.workflow_files import load_workflow, schema_of_stages

if TYPE_CHECKING:
    from airflow_provider_sewer.cli.argo_manifest import ArgoTarget
    from airflow_provider_sewer.slurm.workflow_backend import WorkflowJobs


class _Commands(click.Group):
    """Command group that reports user errors with a message and exit code 2, never with a traceback."""

    command_class = Command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line.

        :raises InvalidWorkflow: while a file is imported; an exit would end the importing process.
        """
        refuse_during_import("sppe", calling_line())
        return super().main(*args, **kwargs)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name."""
        if not ctx.resilient_parsing and args[0] not in self.commands and os.path.isfile(args[0]):
            raise click.UsageError(f"the command is missing; to run the file: sppe run {shlex.join(args)}", ctx)
        return super().resolve_command(ctx, args)

    __call__ = main  # that of click calls from a file of its own

    def invoke(self, ctx: click.Context) -> Any:
        _prepare_streams()
        set_color(ctx, "auto")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel discards the exit codes of tasks
        try:
            with signals.raise_signals():
                return super().invoke(ctx)
        except SewerError as error:
            write_message(f"sppe: {error}", "red")
            ctx.exit(2)
        except click.UsageError as error:
            raise click.UsageError(with_short_values(error.format_message()), ctx=error.ctx) from None
        except FileNotFoundError:
            with suppress(FileNotFoundError):
                os.getcwd()
                raise
            write_message("sppe: the current directory no longer exists; cd to another one")
            ctx.exit(2)
        except signals.Received as received:
            ctx.exit(128 + received.number)
        except BrokenPipeError:
            ctx.exit(1)
        finally:
            _flush_streams()
            gc.freeze()  # the process ends now; a last garbage collection would only take time


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sppe")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run, show and convert workflows of Python modules.

    \b
    Examples:
      sppe init                               write a first workflow
      sppe show flow.py                       print the graph
      sppe run flow.py -n                     check all, print the commands
      sppe run flow.py                        run the workflow
      sppe run flow.py --resume               run the tasks that have not succeeded
      sppe status flow.py                     show the last run
      sppe logs TASK -f                       follow the log of a task
      sppe report -o report.html              graph, timeline and usage of the last run
      sppe run flow.py --on slurm --slurm partition=gpu
      sppe convert flow.py --to vscode        debug a task in VS Code

    Exit codes: 0 all tasks succeeded, 1 a task failed, 2 no task was started because the file or the
    command line is invalid, 130 and 143 after Ctrl-C and SIGTERM.

    \b
    Shell completion, in the start file of the shell (zsh: after compinit):
      bash  eval "$(_SPPE_COMPLETE=bash_source sppe)"
      zsh   eval "$(_SPPE_COMPLETE=zsh_source sppe)"
      fish  _SPPE_COMPLETE=fish_source sppe | source
    """  # noqa: D301 - click reads the character \b
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


_ON = option(
    "--on",
    group=SLURM,
    setting="run_on",
    default="local",
    type=click.Choice(RUN_ON),
    show_default=True,
    help="Run tasks on this machine, or as Slurm jobs unless they set run_on='local'.",
)
_SLURM = option(
    "--slurm",
    group=SLURM,
    setting="slurm",
    multiple=True,
    metavar="K=V",
    callback=completed,
    help="Slurm parameter for tasks that do not set it. Repeatable.",
)


_RUN_DIR = option(
    "--run-dir",
    group=SLURM,
    setting="run_dir",
    type=click.Path(),
    help="Folder for job directories, visible to all nodes. [default: ~/.sewer/runs]",
)
_LOG_DIR = option(
    "--log-dir", setting="log_dir", type=click.Path(), help="Log folder of a run. [default: those below .sewer/logs]"
)


@main.command()
@run_options
@LIMIT
@option(
    "-j",
    "at_once",
    setting="concurrent_tasks",
    metavar="N",
    type=click.IntRange(min=1),
    help="Maximum number of concurrent tasks. [default: number of processors; all jobs]",
)
@option(
    "--retries",
    setting="retries",
    default=0,
    metavar="N",
    type=click.IntRange(min=0),
    show_default=True,
    help="Run a failed task again, at most N times. A Slurm job then requests the resources of its retry_with.",
)
@_ON
@_SLURM
@_RUN_DIR
@option(
    "--ahead",
    group=SLURM,
    is_flag=True,
    help="Submit jobs at once, with afterok dependencies. Jobs that need products or results of others, or may be "
    "up to date, are submitted later.",
)
@option(
    "--log-dir",
    setting="log_dir",
    type=click.Path(),
    help="Folder for the log files of tasks. [default: one below .sewer/logs]",
)
@option("-q", "--quiet", group=OUTPUT, is_flag=True, help="Print only warnings and failures.")
@option("-v", "--verbose", group=OUTPUT, is_flag=True, help="Print each line, command and folder; no live table.")
@option("-n", "--dry-run", is_flag=True, help="Make all checks, print the commands of the tasks, and run none.")
def run(
    request: RunRequest,
    limits: dict[str, int],
    at_once: int | None,
    retries: int,
    on: str,
    slurm: tuple[str, ...],
    run_dir: str | None,
    ahead: bool,
    log_dir: str | None,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Run a workflow; each task starts when its upstream tasks have succeeded."""
    from airflow_provider_sewer.cli.run_command import RunOptions, run_in_terminal

    options = RunOptions(
        selection=request.selection,
        resume=request.resume,
        state=request.state,
        jobs=at_once,
        limits=limits,
        log_dir=log_dir,
        slurm=_slurm(slurm, run_dir, is_enabled=on == "slurm", is_ahead=ahead, retries=retries),
        verbosity=verbose - quiet,
        retries=retries,
    )
    settings = options.settings_here(request.settings)
    if dry_run:
        from airflow_provider_sewer.cli.dry_run import explain

        click.echo(explain(request.file.workflow(), settings, options, has_commands=True))
    else:
        sys.exit(run_in_terminal(request.file.workflow(), settings, options))


@main.command()
@run_options
@LIMIT
@_ON
@_SLURM
@_RUN_DIR
def explain(request: RunRequest, limits: dict[str, int], on: str, slurm: tuple[str, ...], run_dir: str | None) -> None:
    """Show for each task whether it would run, and the reason; for a Slurm job also its interpreter.

    The checks are those of a run. No task is started.
    """
    from airflow_provider_sewer.cli.dry_run import explain
    from airflow_provider_sewer.cli.run_command import RunOptions

    jobs = _slurm(slurm, run_dir, is_enabled=on == "slurm", is_ahead=False)
    options = RunOptions(
        request.selection, request.resume, request.state, jobs=None, limits=limits, log_dir=None, slurm=jobs
    )
    settings = options.settings_here(request.settings)
    click.echo(explain(request.file.workflow(), settings, options, has_commands=False))


@main.command()
@convert_options
@option("--to", "form", required=True, type=click.Choice(["vscode", "argo"]), help="Target format.")
@option("-o", "--output", type=click.Path(), help="Output file. [default: .vscode/launch.json; stdout for Argo]")
@option("--print-only", is_flag=True, help="Print a complete new file instead of writing one.")
@option("--launch-json-version", default="0.2.0", show_default=True)
@argo_options
def convert(
    request: ConvertRequest,
    form: str,
    output: str | None,
    print_only: bool,
    launch_json_version: str,
    target: ArgoTarget,
) -> None:
    """Write debug configurations for VS Code, or a manifest for Argo Workflows.

    For VS Code, all tasks of a file or of one workflow get a configuration, and other content of launch.json is kept. A
    result of another task is that of the last run; a task with a value that no run has saved is named, gets no
    configuration, and makes the exit code 1.

    For Argo, the arguments of the workflow without a value become parameters of the manifest.
    """
    if form == "argo":
        from airflow_provider_sewer.cli.argo_manifest import write_manifest

        write_manifest(request, target, None if print_only else output)
        return
    from airflow_provider_sewer.cli.convert import convert

    output = None if print_only else output or ".vscode/launch.json"
    sys.exit(convert(request.tasks(), request.file.path, output, launch_json_version))


@main.command()
@convert_options
@option("--to", required=True, type=click.Choice(["argo"]), expose_value=False, help="Target.")
@argo_options
@option("--host", group=ARGO, setting="argo_host", help="Address of the Argo server. [default: $ARGO_SERVER]")
@option(
    "--token-file",
    group=ARGO,
    setting="argo_token_file",
    type=click.Path(),
    help="File with the token for the server. [default: $ARGO_TOKEN]",
)
@option("--wait", "waits", is_flag=True, help="Wait for the end; the exit code is 1 unless the workflow succeeds.")
@option(
    "--poll-interval",
    default=5.0,
    type=click.FloatRange(min=0.1),
    show_default=True,
    help="Seconds between two requests with --wait.",
)
def submit(
    request: ConvertRequest,
    target: ArgoTarget,
    host: str | None,
    token_file: str | None,
    waits: bool,
    poll_interval: float,
) -> None:
    """Submit a workflow to an Argo server."""
    from airflow_provider_sewer.cli import submit

    to = submit.server(host, token_file, target.namespace)
    sys.exit(submit.submit(request, target, to, waits=waits, interval=poll_interval))


@main.command()
@file_options
@SELECT
@EXCLUDE
@option(
    "--format",
    "form",
    default="tree",
    type=click.Choice(["tree", "json", "mermaid", "svg", "html"]),
    show_default=True,
)
def show(file: WorkflowFile, select: tuple[str, ...], exclude: tuple[str, ...], form: str) -> None:
    """Print the graph of a workflow without running it."""
    from airflow_provider_sewer.exporters import diagram, svg, workflow_json

    forms = {
        "tree": diagram.to_tree,
        "json": workflow_json.to_json,
        "mermaid": diagram.to_mermaid,
        "svg": svg.workflow_svg,
        "html": svg.workflow_html,
    }
    click.echo(forms[form](selected(file.workflow(), select or None, exclude)).rstrip("\n"))


_STATE = option("--state", type=click.Path(), help="State file of the run. [default: the latest in .sewer/state]")


@main.command()
@optional_file
@WORKFLOW
@_STATE
def status(workflow: str | None, state: str | None) -> None:
    """Show the last run: its tasks, their states and the reasons of failures.

    Without FILE, it is the last run in this folder.
    """
    from airflow_provider_sewer.cli import last_run

    click.echo(last_run.status(last_run.Request(given_file(), workflow, state)))


def _names_of_last_run(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from airflow_provider_sewer.cli import last_run

    with suppress(SewerError, OSError):  # there is none to complete from
        return [name for name in last_run.task_names() if name.startswith(incomplete)]
    return []


@main.command()
@click.argument("task", shell_complete=_names_of_last_run)
@optional_file
@WORKFLOW
@_STATE
@option("-f", "--follow", is_flag=True, help="Print further lines as they come, of the present or the next run.")
def logs(task: str, workflow: str | None, state: str | None, follow: bool) -> None:
    """Print the log of a task in the last run; of a mapped task, name an instance, such as 'train[n=10]'.

    Without FILE, it is the last run in this folder. With -f, a run that has ended is not followed: sppe waits for the
    next one, and names it.
    """
    from airflow_provider_sewer.cli import last_run

    last_run.print_log(last_run.Request(given_file(), workflow, state), task, follows=follow)


@main.command()
@option(
    "--older-than",
    "days",
    default=30,
    metavar="DAYS",
    type=click.IntRange(min=1),
    show_default=True,
    help="Remove only files without a change for this number of days.",
)
@option(
    "--run-dir",
    setting="run_dir",
    default="~/.sewer/runs",
    type=click.Path(),
    show_default=True,
    help="Folder for job directories.",
)
@option("-y", "--yes", is_flag=True, help="Remove without a question.")
def clean(days: int, run_dir: str, yes: bool) -> None:
    """Remove old logs and states in .sewer, and old job directories, after a preview and a question.

    Nothing that a running sppe or a job uses is removed. Without its state, a workflow cannot be resumed.
    """
    from airflow_provider_sewer.cli import clean

    run_dir = os.path.abspath(os.path.expanduser(run_dir))
    found = clean.leftovers(run_dir, days)
    for each in found:
        click.echo(str(each))
    if not found:
        click.echo(f"Nothing is older than {days} days")
        return
    question = f"Remove them ({clean.size_text(sum(each.size for each in found))})?"
    if not yes and not sys.stdin.isatty():
        click.echo("Pass --yes to remove them")
    elif yes or click.confirm(question):
        clean.remove(found, run_dir)
        click.echo(f"Removed {len(found)}")


@main.command()
@optional_file
def config() -> None:
    """Show each setting, its value and the place that it comes from.

    Settings are in the table [tool.sewer] of pyproject.toml, or in sewer.toml, in the folder of FILE or the nearest one
    above. The command line has precedence over variables such as SEWER_RUN_DIR, and these over the file.
    """
    from airflow_provider_sewer.cli.config import listed

    click.echo(listed(given_file()))


@main.command()
@click.argument("folder", default=".", type=click.Path())
def init(folder: str) -> None:
    """Write a first workflow, its DAG and an .airflowignore into FOLDER, the current one by default."""
    from airflow_provider_sewer.cli.init import write_first_workflow

    for path in write_first_workflow(folder):
        click.echo(f"Wrote {path}")
    start = "" if folder == "." else f"cd {shlex.quote(folder)} && "
    click.echo(f"Next: {start}sppe show flow.py && sppe run flow.py")


@main.command()
@click.argument("run", required=False, type=click.Path(), is_eager=True, callback=take_file_of_run)
@_LOG_DIR
@option("-o", "--output", type=click.Path(), help="Output file. [default: stdout]")
@option("--format", "form", type=click.Choice(["html", "json", "tsv"]), help="[default: from --output, or html]")
def report(run: str | None, log_dir: str | None, output: str | None, form: str | None) -> None:
    """Report on a run: graph, timeline, used and requested resources, failures.

    RUN is the log folder of a run, or a workflow file for its latest run. By default it is the latest run.
    """
    from airflow_provider_sewer.cli import report_command
    from airflow_provider_sewer.exporters.text_files import replace_text

    form = form or (os.path.splitext(output or "")[1].lstrip(".") if output else "html")
    if form not in report_command.FORMATS:
        raise click.UsageError(f"--format must be html, json or tsv, got {form!r}")
    folders = report_command.RunFolders(log_dir)
    record = report_command.find_run(run, folders)
    text = report_command.report(record, folders, form, os.path.dirname(os.path.abspath(output or "report")))
    if output is None:
        click.echo(text, nl=False)
    else:
        replace_text(output, text)
        click.echo(f"Wrote {output}", err=True)


@main.command()
@workflow_file
@_LOG_DIR
@option("--since", metavar="TIME", help="Runs since a date or for a duration such as 7d or 12h. [default: the last 10]")
@option("--format", "form", default="text", type=click.Choice(["text", "tsv"]), show_default=True)
def usage(path: str, log_dir: str | None, since: str | None, form: str) -> None:
    """Show requested and used resources of the jobs of a workflow file, and suggest requests that fit.

    It reads the records of the runs. If FILE is a folder, it reads the job directories below it, such
    as those of Airflow in a run_dir. It changes no request.
    """
    from airflow_provider_sewer.cli import report_command

    click.echo(report_command.usage(path, report_command.RunFolders(log_dir), since, form), nl=False)


@main.command()
def schema() -> None:
    """Print the JSON Schema of stages in YAML, for completion and validation in editors."""
    click.echo(schema_of_stages().rstrip("\n"))


@main.command()
@workflow_file
@WORKFLOW
@ARGUMENTS
@JOBS
@LIMIT
@option("--make", is_flag=True, help="Run the printed commands with the airflow executable on PATH.")
def pools(
    path: str,
    workflow: str | None,
    arguments: dict[str, Any],
    jobs: str | None,
    limits: dict[str, int],
    make: bool,
) -> None:
    """Print the commands that create Airflow pools for the resources of tasks."""
    from airflow_provider_sewer.cli.pools import make_pools, pool_commands

    commands = pool_commands(load_workflow(path, workflow, jobs=jobs, arguments=arguments), limits)
    for command in commands:
        click.echo(shlex.join(command))
    if make:
        make_pools(commands)


def _slurm(
    pairs: tuple[str, ...], run_dir: str | None, *, is_enabled: bool, is_ahead: bool, retries: int = 0
) -> WorkflowJobs | None:
    if not is_enabled:
        for name in ("slurm", "run_dir", "ahead"):
            if is_given(name):
                raise click.UsageError(f"--{name.replace('_', '-')} requires --on slurm")
        return None
    from airflow_provider_sewer.cli.slurm_options import SbatchVariables, slurm_settings
    from airflow_provider_sewer.slurm.workflow_backend import WorkflowJobs

    variables = SbatchVariables.read(os.environ)
    for note in variables.notes:
        write_message(f"sppe: {note}")
    settings = slurm_settings(pairs, run_dir)
    return WorkflowJobs(settings, options=variables.options, ahead=is_ahead, retries=retries)


def _flush_streams() -> None:
    """Flush stdout and stderr; a closed pipe is replaced, so that Python does not fail over it at shutdown."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _prepare_streams() -> None:
    """Ensure that standard streams exist and accept any text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The parent process has closed it. Else the first log file would get its number.
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
