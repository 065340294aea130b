"""``sppe status`` and ``sppe logs``: the last run of a workflow file."""

from __future__ import annotations

import glob
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.cli.messages import colored
from airflow_provider_sewer.cli.run_command import COLORS, STATES
from airflow_provider_sewer.core.errors import SewerError, unknown_name
from airflow_provider_sewer.core.trusted_files import open_own
from airflow_provider_sewer.execution.durations import duration_text
from airflow_provider_sewer.execution.log_files import file_names
from airflow_provider_sewer.execution.output import printable
from airflow_provider_sewer.execution.state_file import LastRun, read_last_run, state_path
from airflow_provider_sewer.execution.task_states import TaskState

if TYPE_CHECKING:
    from typing import BinaryIO

_COLORS = {state.value: color for state, color in COLORS.items()}
_SUCCESSES = frozenset(state.value for state in TaskState if state.is_success)
#: Seconds between two reads of a log that is followed, and of the state of its run.
_INTERVAL = 0.2
_BLOCK = 1 << 20


class Request(NamedTuple):
    """The run to show.

    :param file: the workflow file; ``None`` for any.
    :param workflow: the workflow's name; ``None`` for any.
    :param state: the state file, if it is given.
    """

    file: str | None
    workflow: str | None
    state: str | None

    def state_file(self) -> str:
        """Return the state file that was written last.

        :raises SewerError: when there is none.
        """
        if self.state is not None:
            return self.state
        name = glob.escape(file_names([self.workflow])[self.workflow]) if self.workflow else "*"
        pattern = state_path(name, self.file, STATES) if self.file else os.path.join(STATES, f"{name}-????????.jsonl")
        found = sorted(glob.glob(pattern), key=os.path.getmtime)
        if not found:
            which = " ".join(filter(None, [self.workflow and f"workflow {self.workflow!r}", self.file]))
            of_which = f" of {which}" if which else ""
            raise SewerError(
                f"no run{of_which} in {os.path.abspath(STATES)}; run it here, or name its state with --state"
            )
        return found[-1]


def status(request: Request) -> str:
    """Return the state of the last run and of its tasks.

    :raises SewerError: when there is none.
    """
    last = read_last_run(request.state_file())
    width = max(map(len, last.outcomes), default=0)
    lines = [f"{last.workflow}: {_summary(last)}", ""]
    for name, outcome in last.outcomes.items():
        state = _present_state(last, outcome.state)
        text = f"  {name:<{width}}  {state:<15}  {duration_text(outcome.seconds):>9}".rstrip()
        lines.append(colored(_shown(text), _COLORS.get(state), sys.stdout))
    for name, outcome in last.outcomes.items():
        if outcome.state == TaskState.FAILED.value:
            lines += ["", _shown(f"{name}: {outcome.reason}")]
    return "\n".join([*lines, "", f"Logs: {last.log_dir}"])


def print_log(request: Request, task: str, *, follows: bool) -> None:
    """Write the log of a task to stdout.

    :param follows: write its further lines as they come, until the task has ended.
    :raises SewerError: when there is no such task, or it has no log.
    """
    path = request.state_file()
    last = read_last_run(path)
    if task not in last.outcomes:
        raise SewerError(unknown_name("task", task, list(last.outcomes)))
    log = os.path.join(last.log_dir, f"{file_names(last.outcomes)[task]}.log")
    while follows and not os.path.exists(log) and _is_open(last, task):
        time.sleep(_INTERVAL)
        last = read_last_run(path)
    try:
        file = open_own(log, is_private=False)
    except OSError as error:
        state = _present_state(last, last.outcomes[task].state)
        reason = f" ({last.outcomes[task].reason})" if last.outcomes[task].reason else ""
        raise SewerError(f"task {task!r} has no log: it is {state}{reason}; {log}: {error.strerror}") from None
    with file:
        has_ended = not follows
        while True:
            _copy(file)
            if has_ended:
                return
            time.sleep(_INTERVAL)
            has_ended = not _is_open(read_last_run(path), task)


def _copy(file: BinaryIO) -> None:
    while data := file.read(_BLOCK):
        text = data.decode("utf-8", "backslashreplace")
        sys.stdout.write(_shown(text))
    sys.stdout.flush()


def _is_open(last: LastRun, task: str) -> bool:
    states = (TaskState.WAITING.value, TaskState.RUNNING.value)
    return last.is_running and last.outcomes[task].state in states


def _summary(last: LastRun) -> str:
    began = datetime.fromisoformat(last.began)
    when = began.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if last.is_running:
        return f"running for {_since(began, datetime.now(UTC))}, since {when} ({last.process})"
    if last.ended is None:
        return f"killed, or its host stopped; it began at {when} ({last.process})"
    count = sum(outcome.state in _SUCCESSES for outcome in last.outcomes.values())
    duration = _since(began, datetime.fromisoformat(last.ended))
    return f"{count} of {len(last.outcomes)} tasks succeeded, in {duration}; it began at {when}"


def _since(began: datetime, now: datetime) -> str:
    return duration_text(max((now - began).total_seconds(), 0.001))


def _present_state(last: LastRun, state: str) -> str:
    """Return the state of a task; in a run that was killed, no task runs or waits."""
    is_over = not last.is_running and state in (TaskState.WAITING.value, TaskState.RUNNING.value)
    return TaskState.STOPPED.value if is_over else state


def _shown(text: str) -> str:
    return printable(text) if sys.stdout.isatty() else text
