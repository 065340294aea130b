"""State of an earlier run of a workflow, in a file that stays readable after a kill at any moment.

The file has one JSON object per line. The first names the workflow; each further one has the state of a task, and the
last line of a task counts. Lines are only appended, each in one write: a killed run leaves at most one unfinished line
at the end, which is ignored.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import stat
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import StateError, UntrustedPath
from airflow_provider_sewer.core.formats import STATE, VERSION_KEY
from airflow_provider_sewer.core.trusted_files import (
    check_own_folders,
    foreign_reason,
    make_folder,
    own_part,
    parse_json,
    read_own,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from types import TracebackType
    from typing import Self

    from airflow_provider_sewer.execution.task_states import Outcome

_SUCCEEDED, _RUNNING = "succeeded", "running"
_BEGIN = b'{"sewer_state": '
#: Maximum bytes of a state file; it holds the results of tasks.
_LARGEST = 1024 * 1024 * 1024


class FinishedTask(NamedTuple):
    """A task that has succeeded.

    :param command: digest of its command; ``None`` if it was not recorded, which matches any command.
    :param result: its result.
    :param at: its position in the order in which tasks succeeded.
    """

    command: str | None
    result: Any
    at: int = 0


class TaskOutcome(NamedTuple):
    """State of a task in the last run.

    :param state: its state.
    :param seconds: its duration.
    :param reason: why it did not succeed, or did not run.
    :param at: the time of the record.
    :param tries: how often it was tried.
    """

    state: str
    seconds: float = 0.0
    reason: str = ""
    at: str = ""
    tries: int = 1


class LastRun(NamedTuple):
    """Last run of a workflow, as its state file has it.

    :param workflow: the workflow's name.
    :param began: the time of its start.
    :param ended: the time of its end; ``None`` if it runs or was killed.
    :param log_dir: folder of its log files.
    :param run_dir: base folder of its jobs, if it has any.
    :param process: the process that runs it, and the host.
    :param is_running: whether it runs; on a file system without locks, this is not known.
    :param outcomes: the states of its tasks.
    """

    workflow: str
    began: str
    ended: str | None
    log_dir: str
    run_dir: str | None
    process: str
    is_running: bool
    outcomes: dict[str, TaskOutcome]


_NOTHING: Mapping[str, FinishedTask] = MappingProxyType({})


class StateFile:
    """State of one workflow, locked by one run at a time.

    :param path: the state file; created if it does not exist.
    :param workflow: the workflow's name.
    :param keep: continue with its content; otherwise it is emptied.
    :param start: further tasks that have succeeded, to be recorded as well.
    :param resumes: whether this run resumes the last run in the file.
    :param run_dir: base folder of the run's jobs, if it has any.
    :param log_dir: folder of the run's log files, for :func:`read_last_run`.
    :param tasks: names of the run's tasks, likewise.
    :raises StateError: when another run holds it or may have jobs left, or when it cannot be read or written.
    """

    def __init__(
        self,
        path: str,
        workflow: str,
        *,
        keep: bool,
        start: Mapping[str, FinishedTask] = _NOTHING,
        resumes: bool = False,
        run_dir: str | None = None,
        log_dir: str | None = None,
        tasks: Collection[str] = (),
    ) -> None:
        self.path = path
        self._writing = threading.Lock()
        try:
            make_folder(os.path.dirname(path) or ".")
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise StateError(
                f"cannot open the state file {path}: {error.strerror}; name another with --state"
            ) from None
        try:
            self._reject_foreign_file(keep=keep)
            self._lock()
            former = _last_header(path, workflow)
            self._reject_abandoned_jobs(former.get("run_dir"), run_dir)
            self._may_have_left_jobs = "run_dir" in former
            #: Part of the names of jobs: the same for all runs with this file, and for this one.
            self.series = str(former.get("series") or os.urandom(8).hex())
            self.run = str((former.get("run") if resumes else None) or os.urandom(8).hex())
            known, length = _read(path, workflow) if keep else ({}, 0)
            self.done = {**start, **known}
            os.ftruncate(self._file, length)  # the next line must not extend an unfinished one
            self._length = length
            header = {
                "sewer_state": STATE.version,
                "workflow": workflow,
                "series": self.series,
                "run": self.run,
                **({"run_dir": run_dir} if run_dir else {}),
                **({"log_dir": os.path.abspath(log_dir), "tasks": list(tasks)} if log_dir else {}),
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "at": _now(),
            }
            self._write(header, *(_success(task, done) for task, done in start.items()))
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock and close the file."""
        os.close(self._file)

    def record_end(self, *, is_part: bool = False) -> None:
        """Record that the run and all its tasks have ended.

        :param is_part: only a subset of the workflow ran; the other tasks may have jobs left from the previous run.
        """
        if not (is_part and self._may_have_left_jobs):
            self._write({"sewer_end": STATE.version, "at": _now()})

    def record(
        self, task: str, state: str, *, command: str | None = None, result: Any = None, reason: str = ""
    ) -> None:
        """Record the state of a task.

        :param command: digest of its command, if it succeeded.
        :raises StateError: when the file cannot be written.
        """
        if state == _SUCCEEDED:
            self._write(_success(task, FinishedTask(command, result)))
        else:
            self._write({"task": task, "state": state, "at": _now(), **({"reason": reason} if reason else {})})

    def record_start(self, task: str) -> None:
        """Record for a reader of the last run that a task runs."""
        self._write({"outcome_of": task, "as": _RUNNING, "at": _now()})

    def record_outcome(self, task: str, outcome: Outcome) -> None:
        """Record for a reader of the last run how a task ended; another run does not use it."""
        seconds = round(outcome.seconds, 3)
        fields = {"as": outcome.state.value, "seconds": seconds, "reason": outcome.reason, "tries": outcome.tries}
        self._write({"outcome_of": task, **fields, "at": _now()})

    def _write(self, *lines: dict[str, Any]) -> None:
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with self._writing:
            try:
                if os.write(self._file, data) != len(data):
                    os.ftruncate(self._file, self._length)  # the next line must not extend this one
                    raise StateError(f"cannot write the state file {self.path}: no space left")
            except OSError as error:
                raise StateError(f"cannot write the state file {self.path}: {error.strerror}") from None
            self._length += len(data)

    def _reject_abandoned_jobs(self, former: str | None, run_dir: str | None) -> None:
        """Require that this run can reattach to, or cancel, the jobs that the last run may have left."""
        if former is not None and former != run_dir:
            raise StateError(
                f"the last run with the state file {self.path} was killed, and its jobs may still run; pass "
                f"--on slurm --run-dir {shlex.quote(former)} to cancel them, also --resume to reattach to them, or "
                "name another state file with --state"
            )

    def _reject_foreign_file(self, *, keep: bool) -> None:
        """Reject a file that is not a state file, or that another user could have written.

        :param keep: the content is read, and thereby validated, later.
        """
        status = os.fstat(self._file)
        is_file = stat.S_ISREG(status.st_mode)
        if is_file and (reason := foreign_reason(self.path, status)):
            raise UntrustedPath(f"the state file {self.path} {reason}")
        begin = os.pread(self._file, len(_BEGIN), 0) if is_file and not keep else b""
        if not is_file or not _BEGIN.startswith(begin):  # a kill may have cut it anywhere
            raise StateError(f"{self.path} exists and is not a state file; name another with --state")

    def _lock(self) -> None:
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)  # ``sppe status`` holds it for a moment
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"{self._holder()} is using the state file {self.path}; wait for it, or name another with --state"
            ) from None
        except OSError:
            return  # without file locks, concurrent runs are not detected

    def _holder(self) -> str:
        for line in reversed(_lines(self.path)[0]):
            if "sewer_state" in line:
                return f"another run (process {line.get('pid')} on {line.get('host')}, since {line.get('at')})"
        return "another run"


def read_state(path: str, workflow: str | None) -> dict[str, FinishedTask]:
    """Return the tasks that succeeded according to a state file; an empty mapping if it does not exist.

    :param workflow: the workflow's name; ``None`` accepts any.

    :raises StateError: when it is the state of another workflow, or not a state file.
    """
    return _read(path, workflow)[0] if os.path.exists(path) else {}


def read_last_run(path: str) -> LastRun:
    """Return the last run of a state file.

    :raises StateError: when the file cannot be read, or no run has recorded its tasks in it.
    """
    lines = _lines(path)[0]
    first = next((at for at in reversed(range(len(lines))) if "log_dir" in lines[at]), None)
    if first is None:
        raise StateError(f"{path}: no run has recorded its tasks in this file; run the workflow first")
    header, ends = lines[first], [line for line in lines[first:] if "sewer_end" in line]
    outcomes = {str(each): TaskOutcome("waiting") for each in header["tasks"]}
    for line in lines[first:]:
        if "outcome_of" in line:
            values = line["as"], float(line.get("seconds", 0)), line.get("reason", ""), line["at"], line.get("tries", 1)
            outcomes[str(line["outcome_of"])] = TaskOutcome(*values)
    return LastRun(
        workflow=str(header["workflow"]),
        began=str(header["at"]),
        ended=str(ends[-1]["at"]) if ends else None,
        log_dir=str(header["log_dir"]),
        run_dir=header.get("run_dir"),
        process=f"process {header['pid']} on {header['host']}",
        is_running=_is_locked(path),
        outcomes=outcomes,
    )


def may_have_jobs(path: str) -> bool:
    """Return whether the last run of a state file was killed and may have left jobs.

    :raises StateError: when it is not a state file.
    """
    lines = _lines(path)[0]
    if not lines or "sewer_state" not in lines[0]:
        raise StateError(f"{path} is not a state file")
    starts = [at for at, line in enumerate(lines) if "sewer_state" in line]
    return "run_dir" in lines[starts[-1]] and not any("sewer_end" in line for line in lines[starts[-1] :])


def _is_locked(path: str) -> bool:
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # no file locks here
    return False


def records_since(path: str, moment: float) -> set[str]:
    """Return the tasks whose state was recorded after a point in time; an empty set if the file does not exist.

    :param moment: seconds since 1970.
    :raises StateError: when it is not a state file.
    """
    if not os.path.exists(path):
        return set()
    since = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return {str(line["task"]) for line in _lines(path)[0] if "task" in line and str(line.get("at")) > since}


def _last_header(path: str, workflow: str) -> dict[str, Any]:
    """Return the header of the last run of a workflow; empty if it cannot be read.

    ``run_dir`` is left out if that run recorded its end.
    """
    has_ended = False
    with suppress(StateError):
        for line in reversed(_lines(path)[0]):
            has_ended = has_ended or "sewer_end" in line
            if "sewer_state" in line and line.get("workflow") == workflow:
                return {name: value for name, value in line.items() if name != "run_dir" or not has_ended}
    return {}


def _read(path: str, workflow: str | None) -> tuple[dict[str, FinishedTask], int]:
    """Return the tasks that succeeded, and the number of bytes of the complete lines."""
    lines, length = _lines(path)
    if lines and workflow is not None and lines[0].get("workflow") != workflow:
        whose = f" but of {lines[0]['workflow']!r}" if "workflow" in lines[0] else ""
        raise StateError(f"{path} is not the state of workflow {workflow!r}{whose}; name its own with --state")
    done: dict[str, FinishedTask] = {}
    for at, line in enumerate(lines):
        if line.get("state") == _SUCCEEDED:
            with STATE.reading(f"{path}:{at + 1}"):
                done[str(line["task"])] = FinishedTask(line["command"], line["result"], at)
        elif "task" in line:
            done.pop(str(line["task"]), None)
    return done, length


def _lines(path: str) -> tuple[list[dict[str, Any]], int]:
    """Return the complete lines, parsed, and their number of bytes."""
    try:
        check_own_folders(*own_part(os.path.dirname(path)))
        data = read_own(path, largest=_LARGEST)
    except OSError as error:
        raise StateError(f"cannot read the state file {path}: {error.strerror}; name another with --state") from None
    length = data.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(data[:length].splitlines(), 1):
        try:
            line = dict(parse_json(text).items())
        except (ValueError, AttributeError):
            raise StateError(
                f"{path}:{number}: not a state file, or changed by another program; name another with --state, "
                "or run without --resume"
            ) from None
        version = line.get("sewer_state", line.get("sewer_end", STATE.version))
        STATE.read(f"{path}:{number}", {VERSION_KEY: version})
        lines.append(line)
    return lines, length


def state_path(workflow: str, file: str, folder: str) -> str:
    """Return the path of a workflow's state file.

    :param workflow: the workflow's name, as part of a file name.
    :param file: the workflow file.
    :param folder: the folder of state files.
    """
    which = hashlib.sha256(os.path.abspath(file).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return os.path.join(folder, f"{workflow}-{which}.jsonl")


def _success(task: str, done: FinishedTask) -> dict[str, Any]:
    return {"task": task, "state": _SUCCEEDED, "at": _now(), "command": done.command, "result": done.result}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
