"""What an earlier run of a workflow has come to: a file that a kill at any moment leaves readable.

The file has one JSON object a line. The first says whose state it is; each further one says how a task stands, and
the last line of a task counts. Lines are only ever appended, each in one write: a run that is killed leaves at worst
one unfinished line at the end, which is left aside.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import StateError, UntrustedPath
from airflow_provider_sewer.core.formats import STATE, VERSION_KEY
from airflow_provider_sewer.core.trusted_files import (
    check_own_folders,
    make_folder,
    own_part,
    parse_json,
    read_own,
    why_foreign,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

_SUCCEEDED = "succeeded"
_BEGIN = b'{"sewer_state": '
#: Bytes that a state file may have: it holds the results of tasks.
_LARGEST = 1024 * 1024 * 1024


class FinishedTask(NamedTuple):
    """A task that has succeeded.

    :param command: digest of what it ran; ``None`` where that was not noted, and whatever it runs now counts.
    :param result: what it left.
    :param at: when, as its place in the order in which tasks have succeeded.
    """

    command: str | None
    result: Any
    at: int = 0


_NOTHING: Mapping[str, FinishedTask] = MappingProxyType({})


class StateFile:
    """The state of one workflow, held by one run at a time.

    :param path: where it lies; made if need be.
    :param workflow: the workflow's name.
    :param keep: go on from what is in it; else it is begun anew.
    :param start: what has succeeded besides; it is noted as well.
    :param resumes: whether this is the run that is in it, gone on with.
    :param run_dir: folder of the files of the run's jobs, if it has any.
    :raises StateError: when another run holds it, or may have left jobs; or when it cannot be read or written.
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
            self._refuse_what_is_no_state(keep=keep)
            self._lock()
            former = _last_header(path, workflow)
            self._refuse_to_leave_jobs(former.get("run_dir"), run_dir)
            self._may_have_left_jobs = "run_dir" in former
            #: What jobs are known by: the same for all runs that have used this file, and for this one.
            self.series = str(former.get("series") or os.urandom(8).hex())
            self.run = str((former.get("run") if resumes else None) or os.urandom(8).hex())
            known, length = _read(path, workflow) if keep else ({}, 0)
            self.done = {**start, **known}
            os.ftruncate(self._file, length)  # what comes next must not be part of an unfinished line
            self._length = length
            header = {
                "sewer_state": STATE.version,
                "workflow": workflow,
                "series": self.series,
                "run": self.run,
                **({"run_dir": run_dir} if run_dir else {}),
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
        """Leave the file to others."""
        os.close(self._file)

    def record_end(self, *, is_part: bool = False) -> None:
        """Note that the run has come to an end with all that it had begun.

        :param is_part: it was a part of the workflow; the other tasks may have jobs that the run before has left.
        """
        if not (is_part and self._may_have_left_jobs):
            self._write({"sewer_end": STATE.version, "at": _now()})

    def record(
        self, task: str, state: str, *, command: str | None = None, result: Any = None, reason: str = ""
    ) -> None:
        """Note how a task stands.

        :param command: digest of what it ran, where it has succeeded.
        :raises StateError: when it cannot be written.
        """
        if state == _SUCCEEDED:
            self._write(_success(task, FinishedTask(command, result)))
        else:
            self._write({"task": task, "state": state, "at": _now(), **({"reason": reason} if reason else {})})

    def _write(self, *lines: dict[str, Any]) -> None:
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with self._writing:
            try:
                if os.write(self._file, data) != len(data):
                    os.ftruncate(self._file, self._length)  # the next line must not be part of this one
                    raise StateError(f"cannot write the state file {self.path}: there is no room for more")
            except OSError as error:
                raise StateError(f"cannot write the state file {self.path}: {error.strerror}") from None
            self._length += len(data)

    def _refuse_to_leave_jobs(self, former: str | None, run_dir: str | None) -> None:
        """See to it that jobs which the last run may have left are taken up, or cancelled, by this one."""
        if former is not None and former != run_dir:
            raise StateError(
                f"the last run with the state file {self.path} was killed, and jobs of it may still run; say "
                f"--on slurm --run-dir {shlex.quote(former)} to have them cancelled, and --resume to have them taken "
                "up, or name another state file with --state"
            )

    def _refuse_what_is_no_state(self, *, keep: bool) -> None:
        """Keep a file from being overwritten that is anything else, or that another user could have written.

        :param keep: its content is read, which says whether it is a state.
        """
        status = os.fstat(self._file)
        is_file = stat.S_ISREG(status.st_mode)
        if is_file and (why := why_foreign(self.path, status)):
            raise UntrustedPath(f"the state file {self.path} {why}")
        begin = os.pread(self._file, len(_BEGIN), 0) if is_file and not keep else b""
        if not is_file or not _BEGIN.startswith(begin):  # a kill may have cut it anywhere
            raise StateError(f"{self.path} is there already, and is no state file; name another with --state")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"{self._holder()} is using the state file {self.path}; wait for it, or name another with --state"
            ) from None
        except OSError:
            return  # a file system without locks; then two runs are not noticed

    def _holder(self) -> str:
        for line in reversed(_lines(self.path)[0]):
            if "sewer_state" in line:
                return f"another run (process {line.get('pid')} on {line.get('host')}, since {line.get('at')})"
        return "another run"


def read_state(path: str, workflow: str) -> dict[str, FinishedTask]:
    """Return what has succeeded by a state file; nothing, if there is none.

    :raises StateError: when it is the state of another workflow, or none.
    """
    return _read(path, workflow)[0] if os.path.exists(path) else {}


def records_since(path: str, moment: float) -> set[str]:
    """Return the tasks of which a state file says something that was noted after a moment; none, if there is no file.

    :param moment: in seconds since 1970.
    :raises StateError: when it is no state file.
    """
    if not os.path.exists(path):
        return set()
    since = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return {str(line["task"]) for line in _lines(path)[0] if "task" in line and str(line.get("at")) > since}


def _last_header(path: str, workflow: str) -> dict[str, Any]:
    """Return what the last run of a workflow has said of itself; nothing where that cannot be read.

    Where its jobs were is left out if it has come to its end with them.
    """
    has_ended = False
    with suppress(StateError):
        for line in reversed(_lines(path)[0]):
            has_ended = has_ended or "sewer_end" in line
            if "sewer_state" in line and line.get("workflow") == workflow:
                return {name: value for name, value in line.items() if name != "run_dir" or not has_ended}
    return {}


def _read(path: str, workflow: str) -> tuple[dict[str, FinishedTask], int]:
    """Return what has succeeded, and how many bytes the whole lines are."""
    lines, length = _lines(path)
    if lines and lines[0].get("workflow") != workflow:
        whose = f" but of {lines[0]['workflow']!r}" if "workflow" in lines[0] else ""
        raise StateError(f"{path} is no state of workflow {workflow!r}{whose}; name its own with --state")
    done: dict[str, FinishedTask] = {}
    for at, line in enumerate(lines):
        if line.get("state") == _SUCCEEDED:
            with STATE.reading(f"{path}:{at + 1}"):
                done[str(line["task"])] = FinishedTask(line["command"], line["result"], at)
        else:
            done.pop(str(line.get("task")), None)
    return done, length


def _lines(path: str) -> tuple[list[dict[str, Any]], int]:
    """Return what the whole lines say, and how many bytes they are."""
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
                f"{path}:{number}: this is no state file, or somebody has changed it; name another with --state, "
                "or run without --resume"
            ) from None
        version = line.get("sewer_state", line.get("sewer_end", STATE.version))
        STATE.read(f"{path}:{number}", {VERSION_KEY: version})
        lines.append(line)
    return lines, length


def state_path(workflow: str, file: str, folder: str) -> str:
    """Return where the state of a workflow lies.

    :param workflow: the workflow's name, as part of a file name.
    :param file: the workflow file.
    :param folder: the folder for states.
    """
    which = hashlib.sha256(os.path.abspath(file).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return os.path.join(folder, f"{workflow}-{which}.jsonl")


def _success(task: str, done: FinishedTask) -> dict[str, Any]:
    return {"task": task, "state": _SUCCEEDED, "at": _now(), "command": done.command, "result": done.result}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
