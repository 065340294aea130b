"""``sppe explain`` and ``sppe run --dry-run``: the checks and decisions of a run, without running a task."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

from airflow_provider_sewer.cli.colors import colored
from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.cli.run_command import RunOptions, prepare
from airflow_provider_sewer.core.command import interpreter_options, shown, shown_call
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask
from airflow_provider_sewer.core.paths import PathMarker, path_for_module
from airflow_provider_sewer.core.placeholders import Result, as_written
from airflow_provider_sewer.core.secret_detection import looks_secret, secret_texts
from airflow_provider_sewer.execution.interpreter import locate_interpreter
from airflow_provider_sewer.execution.plan import results_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.placeholders import Marker
    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow

#: Names that a shell assigns to.
_SHELL_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def explain(workflow: Workflow, settings: ExecutionSettings, options: RunOptions, *, has_commands: bool) -> str:
    """Return for each task whether a run would run it, and the reason; for a Slurm job also its interpreter.

    :param has_commands: add the command of each task, which a user can repeat.
    :raises SewerError: when the workflow could not run.
    """
    prepared = prepare(workflow, settings, options)
    if prepared.start.message:
        write_message(f"sppe: {prepared.start.message}")
    tasks, decisions = prepared.selected.tasks, prepared.plan(resumes=options.resume).decisions
    width = max(map(len, decisions))
    known = {
        name: done
        for name, done in prepared.start.known(prepared.selected).items()
        if name not in decisions or not decisions[name].must_run
    }
    lines = []
    for name in prepared.selected.order:
        task = tasks[name]
        lines.append(f"{name:<{width}}  {_describe(decisions[name])}{_interpreter(task, options)}")
        if has_commands and decisions[name].must_run:
            lines.append(f"  {_command(task, results_for(prepared.selected, task, [known]), options)}")
    return "\n".join(lines)


def _describe(decision: Decision) -> str:
    word, color = ("runs", "cyan") if decision.must_run else ("does not run", "green")
    if not decision.is_sure:
        word, color = "may run", "yellow"
    return f"{colored(f'{word:<12}', color, sys.stdout)}  {decision.reason}"


def _interpreter(task: Task, options: RunOptions) -> str:
    if options.slurm is None or not options.slurm.runs_on_slurm(task):
        return ""
    python = options.slurm.interpreter(task)
    if python is not None and os.sep in python:
        return f"; as a job, with {python}"
    return f"; as a job, with {python or 'python, else python3,'} from the PATH on its node, after setup"


def _command(task: Task, results: Mapping[str, Any], options: RunOptions) -> str:
    """Return the command of a task as text for a shell; a value that only the run gives is in angle brackets."""
    call = task.call(lambda marker: _filled(marker, results))
    env = task.settings.env
    secrets = [*task.secrets, *secret_texts(env, call.argv)]
    variables = [
        f'{name}="${name}"' if looks_secret(name) else f"{name}={shown([value], secrets)}"
        for name, value in env.items()
    ]
    if not all(map(_SHELL_NAME.fullmatch, env)):
        variables.insert(0, "env")
    folder = os.path.abspath(os.path.expanduser(task.settings.workdir or ""))
    command = shown_call([_python(task, options), *interpreter_options(call)], call, secrets)
    return " ".join(["cd", shlex.quote(folder), "&&", *_make_folders(task), *variables, command])


def _make_folders(task: Task) -> list[str]:
    """Return words that create the folders of the products, as a run does."""
    paths = [path_for_module(product.path) for product in task.products]
    folders = dict.fromkeys(os.path.dirname(path) for path in paths)
    folders.pop("", None)
    return ["mkdir", "-p", "--", *map(shlex.quote, folders), "&&"] if folders else []


def _filled(marker: Marker, results: Mapping[str, Any]) -> Any:
    if isinstance(marker, Result):
        try:
            return marker.resolve(results[marker.task.name])
        except (KeyError, InvalidTask):
            return f"<{marker!r}>"
    return path_for_module(marker.path) if isinstance(marker, PathMarker) else as_written(marker)


def _python(task: Task, options: RunOptions) -> str:
    if options.slurm is not None and options.slurm.runs_on_slurm(task):
        return options.slurm.interpreter(task) or "python"
    try:
        return locate_interpreter(task.settings.python)
    except InterpreterError:  # an earlier task may create it
        return task.settings.python or "python"
