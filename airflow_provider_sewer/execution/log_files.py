"""Observer of a run that writes a log file for each task, and the names of these files."""

from __future__ import annotations

import itertools
import os
import re
import threading
import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.trusted_files import make_folder, open_own_to_write
from airflow_provider_sewer.execution.task_states import Outcome, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.output import Stream


_NAME_BYTES = 150
#: Maximum number of open log files, independent of the number of tasks.
_MOST_OPEN = 16


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
            result = outcome.text(f"{outcome.seconds:.3f} s" if outcome.seconds else "") + "\n"
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
