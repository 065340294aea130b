"""``sppe convert``: debug configurations for the tasks of a workflow file."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.cli.run_command import STATES
from airflow_provider_sewer.execution.state_file import read_state, state_path
from airflow_provider_sewer.exporters import vscode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.core.task import Task


def convert(tasks: Sequence[Task], file: str, output: str | None, version: str) -> int:
    """Write the debug configuration of each task that can be debugged, name the others, and return the exit code.

    :param file: the workflow file, whose saved results are used.
    :param output: the file to write; ``None`` to print a new one.
    :raises SewerError: when a state file cannot be read, or the output cannot be written.
    """
    context = vscode.DebugContext(_workspace(output), _saved_results(file))
    problems = {task: problem for task in tasks if (problem := vscode.reason_against(task, context.results))}
    ready = [task for task in tasks if task not in problems]
    if output is None:
        click.echo(vscode.launch_json(ready, version, context), nl=False)
    else:
        vscode.write_launch_json(output, ready, version, context)
        click.echo(f"Wrote {len(ready)} configuration{'s' * (len(ready) != 1)} to {output}", err=True)
        if names := vscode.variables_needed(ready, context):
            write_message(
                f"sppe: secrets are omitted; VS Code takes {', '.join(names)} from the environment it is started in"
            )
    for problem in problems.values():
        write_message(f"sppe: no configuration: {problem}")
    return 1 if problems else 0


def _workspace(output: str | None) -> str:
    """Return the folder that VS Code opens: the one of ``.vscode``, else the current directory."""
    folder, name = os.path.split(os.path.dirname(os.path.abspath(output or "launch.json")))
    return folder if name == ".vscode" else os.getcwd()


def _saved_results(file: str) -> dict[str, Any]:
    """Return the results that runs of a workflow file saved, the latest run of all its workflows last."""
    paths = sorted(glob.glob(state_path("*", file, glob.escape(STATES))), key=os.path.getmtime)
    return {name: task.result for path in paths for name, task in read_state(path, None).items()}
