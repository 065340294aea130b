"""Record of a run in its log folder: when each task was submitted, started and ended, its state and its usage.

The file has one JSON object per line. The first describes the workflow, each further one an event. Lines are only
appended, each in one write, so a killed run leaves at most one unfinished line. The file is locked during the run.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import StateError, UnreadableRecord
from airflow_provider_sewer.core.formats import RUN_RECORD, VERSION_KEY
from airflow_provider_sewer.core.trusted_files import open_own_to_write, parse_json, read_own
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.task_usage import NO_USAGE, TaskUsage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.output import Stream
    from airflow_provider_sewer.execution.task_states import Outcome

#: Name of the file in the log folder.
RUN_FILE = "run.jsonl"
#: The states as they are stored; a renamed state keeps its key.
_STATE_KEYS = {
    TaskState.WAITING: "waiting",
    TaskState.RUNNING: "running",
    TaskState.SUCCEEDED: "succeeded",
    TaskState.UP_TO_DATE: "up_to_date",
    TaskState.RESUMED: "resumed",
    TaskState.FAILED: "failed",
    TaskState.UPSTREAM_FAILED: "upstream_failed",
    TaskState.STOPPED: "stopped",
}
_STATES = {key: state for state, key in _STATE_KEYS.items()}
#: Maximum bytes of a record.
_LARGEST = 256 * 1024 * 1024


class TaskRecord(NamedTuple):
    """A task of a recorded run; times in seconds since 1970, ``None`` if they are not known.

    :param name: its name.
    :param target: its module, function or file.
    :param upstream: names of its upstream tasks.
    :param log: path of its log file.
    :param state: its state.
    :param submitted: when its job was about to be submitted; as ``started`` for a process.
    :param started: when its process or its job started.
    :param ended: when it ended.
    :param seconds: its duration as the run measured it, with the time in the queue.
    :param reason: why it did not succeed, or did not run.
    :param usage: its usage in the last try.
    :param tries: how often it was tried.
    """

    name: str
    target: str
    upstream: Sequence[str]
    log: str
    state: TaskState = TaskState.WAITING
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    seconds: float = 0.0
    reason: str = ""
    usage: TaskUsage = NO_USAGE
    tries: int = 1


class RunRecord(NamedTuple):
    """A recorded run.

    :param workflow: name of the workflow.
    :param file: the workflow file.
    :param path: the record.
    :param started: when it started, in seconds since 1970.
    :param ended: when it ended; ``None`` if it runs, or was killed.
    :param is_running: whether its process holds the record.
    :param tasks: its tasks by name, in the order of the workflow.
    """

    workflow: str
    file: str
    path: str
    started: float
    ended: float | None
    is_running: bool
    tasks: Mapping[str, TaskRecord]


class RunRecorder:
    """Observer that records a run. If the file cannot be written, ``warning`` has the reason and the run goes on.

    :param folder: the log folder of the run.
    :param workflow: the workflow.
    :param logs: path of each task's log file, by name.
    """

    def __init__(self, folder: str, workflow: Workflow, logs: Mapping[str, str]) -> None:
        self.path = os.path.join(folder, RUN_FILE)
        self.warning = ""
        self._lock = threading.Lock()
        self._file: int | None = None
        tasks = {
            name: {
                "target": task.target,
                "upstream": list(workflow.upstream[name]),
                "log": os.path.basename(logs[name]),
            }
            for name, task in workflow.tasks.items()
        }
        try:
            with open_own_to_write(self.path, appends=False) as file:
                self._file = os.dup(file.fileno())
            with suppress(OSError):  # without file locks, a killed run looks like one that goes on
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._give_up(error)
        source = workflow.source
        self._write(
            {
                "sewer_run": RUN_RECORD.version,
                "workflow": workflow.name,
                "file": os.path.abspath(source.file) if source else "",
                "at": time.time(),
                "tasks": tasks,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Record the end of the run and close the file."""
        self._write({"event": "end", "at": time.time()})
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def on_decision(self, task: Task, decision: Decision) -> None:
        """Nothing is recorded about it."""

    def on_start(self, task: Task, _command_line: str, _workdir: str | None) -> None:
        """Record its start, or that its job is about to be submitted."""
        self._record(task, "begun")

    def on_job_event(self, task: Task, line: str) -> None:
        """Events of its job are in the log file."""

    def on_output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        """Output is in the log file."""

    def on_end(self, task: Task, outcome: Outcome) -> None:
        """Record its state and its usage."""
        used, requested, job_id, job_name, directory, started, node, exit_class = outcome.usage
        self._record(
            task,
            "ended",
            state=_STATE_KEYS[outcome.state],
            seconds=outcome.seconds,
            tries=outcome.tries,
            reason=outcome.reason,
            used=dict(used),
            requested=dict(requested),
            job_id=job_id,
            job_name=job_name,
            directory=directory,
            started=started,
            node=node,
            exit_class=exit_class,
        )

    def _record(self, task: Task, event: str, **fields: Any) -> None:
        self._write({"event": event, "task": task.name, "at": time.time(), **fields})

    def _write(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line) + "\n").encode()
        with self._lock:
            if self._file is None:
                return
            try:
                if os.write(self._file, data) != len(data):
                    raise OSError(0, "no space left")
            except OSError as error:
                os.close(self._file)
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._file = None
        self.warning = f"cannot write {self.path}: {error.strerror}; sppe report does not show all of this run"


def read_run(path: str) -> RunRecord:
    """Return the run that a file records.

    :raises StateError: when the file cannot be read.
    :raises UnreadableRecord: when it is damaged, or of another format.
    """
    try:
        data = read_own(path, largest=_LARGEST)
    except OSError as error:
        raise StateError(f"cannot read the record {path}: {error.strerror or error}") from None
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    if not lines:
        raise RUN_RECORD.damaged(path, "it is empty")
    header = _parsed(path, 1, lines[0])
    RUN_RECORD.read(path, {VERSION_KEY: header.get("sewer_run")})
    with RUN_RECORD.reading(path):
        folder = os.path.dirname(path)
        tasks = {
            name: TaskRecord(
                name,
                str(fields["target"]),
                [str(up) for up in fields["upstream"]],
                os.path.join(folder, os.path.basename(fields["log"])),
            )
            for name, fields in header["tasks"].items()
        }
        ended = None
        for number, line in enumerate(lines[1:], 2):
            event = _parsed(path, number, line)
            if event["event"] == "end":
                ended = float(event["at"])
            else:
                tasks[event["task"]] = _after(tasks[event["task"]], event)
        started = float(header["at"])
        return RunRecord(str(header["workflow"]), str(header["file"]), path, started, ended, _is_locked(path), tasks)


def _after(task: TaskRecord, event: Mapping[str, Any]) -> TaskRecord:
    moment = float(event["at"])
    if event["event"] == "begun":
        return task._replace(submitted=moment, started=moment, state=TaskState.RUNNING)
    if event["event"] == "ended":
        started = task.started if event["started"] is None else float(event["started"])
        usage = TaskUsage(
            _numbers(event["used"]),
            _numbers(event["requested"]),
            str(event["job_id"]),
            str(event["job_name"]),
            str(event["directory"]),
            started,
            str(event.get("node", "")),
            str(event.get("exit_class", "")),
        )
        never_started = event["job_id"] and event["started"] is None
        return task._replace(
            started=None if never_started else started,
            ended=moment,
            state=_STATES[event["state"]],
            seconds=float(event["seconds"]),
            reason=str(event["reason"]),
            usage=usage,
            tries=int(event.get("tries", 1)),
        )
    return task  # an event of a later version


def _numbers(fields: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in fields.items()}


def _parsed(path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        return dict(parse_json(line).items())
    except (ValueError, AttributeError):
        raise UnreadableRecord(f"{path}:{number}: not a record of a run") from None


def _is_locked(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def recorded_runs(logs: str) -> list[str]:
    """Return the records of runs below a folder of log folders, the newest first."""
    try:
        found = [entry.path for entry in os.scandir(logs) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    records = [os.path.join(folder, RUN_FILE) for folder in found]
    dated = [(os.stat(record).st_mtime, record) for record in records if os.path.isfile(record)]
    return [record for _, record in sorted(dated, reverse=True)]
