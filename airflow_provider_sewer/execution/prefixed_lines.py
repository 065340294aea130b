"""Observer of a run that writes the output of tasks to stdout and stderr, each line with the task's name as prefix."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, TextIO

from airflow_provider_sewer.execution.durations import duration_text
from airflow_provider_sewer.execution.output import Stream, printable
from airflow_provider_sewer.execution.task_states import Outcome, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task


class PrefixedLines:
    """Observer that prefixes each line of output with its task's name: stdout to stdout, stderr to stderr.

    :param has_workdirs: also write the working directory of each task.
    """

    def __init__(self, *, has_workdirs: bool = False) -> None:
        self._has_workdirs = has_workdirs
        self._lock = threading.Lock()
        self._unfinished: set[tuple[str, Stream]] = set()

    def on_decision(self, task: Task, decision: Decision) -> None:
        """Write the reason why it runs."""
        self._write(sys.stderr, task, [f"running: {decision.reason}"])

    def on_start(self, task: Task, command_line: str, workdir: str | None) -> None:
        """Write its command line."""
        folder = [f"in {workdir or os.getcwd()}"] if self._has_workdirs else []
        self._write(sys.stderr, task, [f"$ {command_line}", *folder])

    def on_job_event(self, task: Task, line: str) -> None:
        """Write the line about its job."""
        self._write(sys.stderr, task, [line])

    def on_output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        """Write its lines; pieces of lines become separate lines."""
        is_end_only = pieces[0] == "\n" and (task.name, stream) in self._unfinished
        is_finished = pieces[-1].endswith("\n")
        (self._unfinished.discard if is_finished else self._unfinished.add)((task.name, stream))
        self._write(sys.stdout if stream is Stream.STDOUT else sys.stderr, task, pieces[is_end_only:])

    def on_end(self, task: Task, outcome: Outcome) -> None:
        """Write its outcome."""
        result = outcome.text(duration_text(outcome.seconds))
        if outcome.state is not TaskState.SUCCEEDED and outcome.reason:
            result += f": {outcome.reason.splitlines()[0]}"
        self._write(sys.stderr, task, [result])

    def _write(self, target: TextIO, task: Task, lines: Iterable[str]) -> None:
        is_terminal = target.isatty()
        shown = map(_as_redrawn, lines) if is_terminal else lines
        text = "".join(f"[{task.name}] {line.removesuffix(chr(10))}\n" for line in shown)
        if is_terminal:
            text = printable(text)
        encoding = target.encoding or "utf-8"
        with self._lock:
            # A character that this terminal or file cannot encode is escaped, so that it does not fail the task.
            target.write(text.encode(encoding, "backslashreplace").decode(encoding))
            target.flush()


def _as_redrawn(line: str) -> str:
    """Return the visible part of a redrawn line on a terminal."""
    text = line.rstrip("\r\n")
    return text.rpartition("\r")[2] + line.removeprefix(text)
