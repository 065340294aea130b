"""Observers of a run: lines with the task's name as prefix, and a log file for each task."""

from __future__ import annotations

import itertools
import os
import re
import sys
import threading
import unicodedata
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, TextIO

from airflow_provider_sewer.core.errors import SewerError, StateError
from airflow_provider_sewer.core.trusted_files import make_folder, open_own_to_write
from airflow_provider_sewer.execution.events import Outcome, TaskState, duration_text
from airflow_provider_sewer.execution.output import Stream, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.state_file import StateFile


class RecordedOutcomes:
    """Observer that records the states of tasks in the state file, for ``sppe status``.

    :param state: the state file. A record that it cannot take is left out.
    """

    def __init__(self, state: StateFile) -> None:
        self._state = state

    def on_decision(self, _task: Task, _decision: Decision) -> None:
        """Do nothing: the log file has it."""

    def on_start(self, task: Task, _command_line: str, _workdir: str | None) -> None:
        """Record that the task runs."""
        with suppress(StateError):
            self._state.record_start(task.name)

    def on_job_event(self, _task: Task, _line: str) -> None:
        """Do nothing, as for decisions."""

    def on_output(self, _task: Task, _stream: Stream, _pieces: Sequence[str]) -> None:
        """Do nothing, as for decisions."""

    def on_end(self, task: Task, outcome: Outcome) -> None:
        """Record how the task ended."""
        with suppress(StateError):
            self._state.record_outcome(task.name, outcome.state.value, outcome.seconds, outcome.reason)


_NAME_BYTES = 150
#: Maximum number of open log files, independent of the number of tasks.
_MOST_OPEN = 16


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
        result = _ended(outcome, duration_text(outcome.seconds))
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


def _ended(outcome: Outcome, duration: str) -> str:
    return f"{outcome.state.value} after {duration}" if duration else outcome.state.value


def _as_redrawn(line: str) -> str:
    """Return the visible part of a redrawn line on a terminal."""
    text = line.rstrip("\r\n")
    return text.rpartition("\r")[2] + line.removeprefix(text)


class LogFiles:
    """Observer that writes a log file for each task: every line with its time and its stream.

    :param folder: the folder of the files; created if it does not exist.
    :param names: the names of the tasks, from which the file names are derived.
    :param goes_on: whether to append to existing files.
    """

    def __init__(self, folder: str, names: Iterable[str], *, goes_on: bool = False) -> None:
        make_folder(folder)
        self.folder = folder
        self._goes_on = goes_on
        self.paths = {name: os.path.join(folder, f"{file}.log") for name, file in file_names(names).items()}
        #: The open files, the least recently written first; binary, so that \r is not translated.
        self._files: dict[str, BinaryIO] = {}
        self._unfinished: dict[str, Stream | None] = {}
        self._lost: dict[str, OSError] = {}
        self._lock = threading.RLock()

    def on_decision(self, task: Task, decision: Decision) -> None:
        """Write the reason why it runs."""
        self._log(task, f"running: {decision.reason}\n")

    def on_start(self, task: Task, command_line: str, workdir: str | None) -> None:
        """Write its command line."""
        self._log(task, f"$ {command_line}\n", f"in {workdir or os.getcwd()}\n")

    def on_job_event(self, task: Task, line: str) -> None:
        """Write the line about its job."""
        self._log(task, f"{line}\n")

    def on_output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        """Write its lines; a line in several pieces stays one line unless the other stream interrupts it."""
        try:
            self._write(task, stream.value, pieces, stream)
        except OSError as error:
            raise self._unwritable(task, error) from error

    def on_end(self, task: Task, outcome: Outcome) -> None:
        """Write its outcome and close the file."""
        if task.name in self._unfinished or outcome.state is TaskState.UP_TO_DATE:
            result = _ended(outcome, f"{outcome.seconds:.3f} s" if outcome.seconds else "") + "\n"
            with self._lock:
                self._log(task, *(f"{line}\n" for line in outcome.reason.splitlines()), result)
                try:
                    self._files.pop(task.name).close()
                except OSError as error:
                    raise self._unwritable(task, error) from error

    def _log(self, task: Task, *lines: str) -> None:
        try:
            self._write(task, "sewer", lines)
        except OSError as error:
            raise self._unwritable(task, error) from error

    def _opened(self, name: str) -> BinaryIO:
        """Return the open log file of a task; if too many are open, the least recently written one is closed.

        :raises OSError: when it cannot be opened, or earlier output to it has been lost.
        """
        if name in self._lost:
            raise self._lost.pop(name)
        file = self._files.pop(name, None)
        if file is None:
            if len(self._files) >= _MOST_OPEN:
                self._set_aside(next(iter(self._files)))
            file = open_own_to_write(self.paths[name], appends=self._goes_on or name in self._unfinished)
        self._files[name] = file
        self._unfinished.setdefault(name, None)
        return file

    def _set_aside(self, name: str) -> None:
        """Close the log file of another task; an error is raised for that task later."""
        try:
            self._files.pop(name).close()
        except OSError as error:
            self._lost[name] = error

    def _unwritable(self, task: Task, error: OSError) -> SewerError:
        return SewerError(f"cannot write the log file {self.paths[task.name]}: {error.strerror}")

    def _write(self, task: Task, source: str, pieces: Sequence[str], stream: Stream | None = None) -> None:
        with self._lock:
            self._write_to(self._opened(task.name), task, source, pieces, stream)

    def _write_to(self, file: BinaryIO, task: Task, source: str, pieces: Sequence[str], stream: Stream | None) -> None:
        unfinished = self._unfinished[task.name]
        prefix = f"{datetime.now().astimezone().isoformat(timespec='milliseconds')} {source}| "
        if unfinished is not None and unfinished is not stream:
            file.write(b"\n")
        starts = [prefix] * len(pieces)
        if unfinished is not None and unfinished is stream:
            starts[0] = ""
        for index in range(1, len(pieces)):
            if not pieces[index - 1].endswith("\n"):
                starts[index] = ""
        text = "".join(start + piece for start, piece in zip(starts, pieces, strict=True))
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        self._unfinished[task.name] = None if pieces[-1].endswith("\n") else stream


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Return a unique file name for each task name, safe on any file system."""
    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        composed = unicodedata.normalize("NFC", name)
        short = re.sub(r"[^\w.-]+", "_", composed).encode()[:_NAME_BYTES].decode("utf-8", "ignore")
        base = short.strip(".-") or "task"
        numbered = (f"{base}_{count}" for count in itertools.count(2))
        given[name] = next(file for file in itertools.chain([base], numbered) if file.casefold() not in taken)
        taken.add(given[name].casefold())
    return given
