"""Live table of a run in a terminal."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from airflow_provider_sewer.execution.durations import duration_text
from airflow_provider_sewer.execution.output import printable
from airflow_provider_sewer.execution.task_states import Outcome, TaskState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.output import Stream

_STYLES = {
    TaskState.WAITING: "dim", TaskState.RUNNING: "cyan", TaskState.SUCCEEDED: "green", TaskState.FAILED: "bold red",
    TaskState.UP_TO_DATE: "green", TaskState.RESUMED: "green",
    TaskState.UPSTREAM_FAILED: "yellow", TaskState.STOPPED: "yellow",
}  # fmt: skip
_WIDTH = 200


class _Row(NamedTuple):
    state: TaskState = TaskState.WAITING
    began: float = 0.0
    seconds: float = 0.0
    last_line: str = ""


def live_console() -> Console | None:
    """Return the terminal, if it can redraw a table."""
    context = click.get_current_context(silent=True)
    console = Console(no_color=True if context is not None and context.color is False else None)
    return console if console.is_terminal and not console.is_dumb_terminal else None


class LiveTable:
    """Table of the state, run time and last output line of each task.

    If the tasks do not fit the height of the terminal, failed and running ones are shown first; the title counts all.
    """

    def __init__(self, workflow: Workflow, console: Console) -> None:
        self._name = workflow.name
        self._rows = {name: _Row() for name in workflow.tasks}
        self._lock = threading.Lock()
        self._console = console
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):  # the terminal may have gone
            self._live.__exit__(None, None, None)

    def on_decision(self, _task: Task, _decision: Decision) -> None:
        """Do nothing: the table has no room for reasons; the log file has them."""

    def on_start(self, task: Task, _command_line: str, _workdir: str | None) -> None:
        """Show the task as running."""
        self._set(task, _Row(TaskState.RUNNING, began=time.monotonic()))

    def on_job_event(self, task: Task, line: str) -> None:
        """Show an event of the Slurm job as the last line, until the task writes output."""
        self._set(task, self._rows[task.name]._replace(last_line=line[:_WIDTH]))

    def on_output(self, task: Task, _stream: Stream, pieces: Sequence[str]) -> None:
        """Show the last non-blank line."""
        line = next((piece for piece in reversed(pieces) if piece.strip()), "")
        if line:
            # A progress bar shows the text after its last carriage return.
            shown = line.strip().rsplit("\r", 1)[-1][:_WIDTH]
            self._set(task, self._rows[task.name]._replace(last_line=shown))

    def on_end(self, task: Task, outcome: Outcome) -> None:
        """Show the final state, and the reason of a failure."""
        row = self._rows[task.name]
        reason = outcome.reason.splitlines()[0][:_WIDTH] if outcome.reason else row.last_line
        self._set(task, row._replace(state=outcome.state, seconds=outcome.seconds, last_line=reason))

    def _set(self, task: Task, row: _Row) -> None:
        with self._lock:
            self._rows[task.name] = row

    def _draw(self) -> Table:
        with self._lock:
            rows = dict(self._rows)
        counts = {state: sum(row.state is state for row in rows.values()) for state in TaskState}
        title = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
        table = Table(title=Text(f"{self._name}: {title}"), expand=True, title_justify="left")
        table.add_column("task", no_wrap=True, overflow="ellipsis", max_width=40)
        table.add_column("state", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("last line", no_wrap=True, overflow="ellipsis", ratio=1)
        for name in self._visible(rows):
            row = rows[name]
            table.add_row(
                Text(name),
                Text(row.state.value, _STYLES[row.state]),
                Text(_clock(row)),
                Text(printable(row.last_line).replace("\t", " ")),
            )
        return table

    def _visible(self, rows: dict[str, _Row]) -> list[str]:
        room = max(3, self._console.height - 6)
        if len(rows) <= room:
            return list(rows)
        urgent = [
            TaskState.FAILED,
            TaskState.RUNNING,
            TaskState.WAITING,
            TaskState.STOPPED,
            TaskState.UPSTREAM_FAILED,
            *TaskState,
        ]
        chosen = sorted(rows, key=lambda name: urgent.index(rows[name].state))[:room]
        return [name for name in rows if name in set(chosen)]


def _clock(row: _Row) -> str:
    seconds = time.monotonic() - row.began if row.state is TaskState.RUNNING else row.seconds
    return duration_text(seconds)
