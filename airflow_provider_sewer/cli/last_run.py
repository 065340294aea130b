"""``sppe status`` and ``sppe logs``: the last run of a workflow file."""

from __future__ import annotations

import glob
import os
import shlex
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.cli.colors import colored
from airflow_provider_sewer.cli.messages import write_message
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
#: Maximum number of instances of a mapped task in a message.
_MOST = 50


class NoRun(SewerError):
    """No run has left a state file."""


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

        :raises NoRun: when there is none.
        """
        if self.state is not None:
            return self.state
        name = glob.escape(file_names([self.workflow])[self.workflow]) if self.workflow else "*"
        pattern = state_path(name, self.file, STATES) if self.file else os.path.join(STATES, f"{name}-????????.jsonl")
        found = sorted(glob.glob(pattern), key=os.path.getmtime)
        if not found:
            which = " ".join(filter(None, [self.workflow and f"workflow {self.workflow!r}", self.file]))
            of_which = f" of {which}" if which else ""
            raise NoRun(f"no run{of_which} in {os.path.abspath(STATES)}; run it here, or name its state with --state")
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
        tries = f"  try {outcome.tries}" if outcome.tries > 1 else ""
        text = f"  {name:<{width}}  {state:<15}  {duration_text(outcome.seconds):>9}{tries}".rstrip()
        lines.append(colored(_shown(text), _COLORS.get(state), sys.stdout))
    for name, outcome in last.outcomes.items():
        if outcome.state == TaskState.FAILED.value:
            lines += ["", _shown(f"{name}: {outcome.reason}")]
    return "\n".join([*lines, "", f"Logs: {last.log_dir}"])


def task_names() -> list[str]:
    """Return the names of the tasks of the last run in this folder that a shell takes without quotes.

    :raises SewerError: when there is none.
    """
    return [name for name in _last_run(Request(None, None, None))[1].outcomes if shlex.quote(name) == name]


def print_log(request: Request, task: str, *, follows: bool) -> None:
    """Write the log of a task to stdout.

    :param follows: write its further lines as they come, until the task has ended; if no run is under way, wait for the
        next one.
    :raises SewerError: when there is no such task, or it has no log.
    """
    path, last = _next_run(request) if follows else _last_run(request)
    task = _one_task(last, task)
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


def _next_run(request: Request) -> tuple[str, LastRun]:
    """Return the state file and the run that is under way, else the next one, as soon as it begins."""
    found = _found_run(request)
    if found is None or not found[1].is_running:
        former = f"the run of {_clock(found[1].began)} has ended" if found else "no run yet"
        write_message(f"sppe: {former}; waiting for the next one")
    while found is None or not found[1].is_running:
        time.sleep(_INTERVAL)
        began, found = found and found[1].began, _found_run(request)
        if found is not None and found[1].began != began:
            break  # it may have ended already
    path, last = found
    write_message(f"sppe: following the run of {last.workflow} that began at {_clock(last.began)} ({last.process})")
    return path, last


def _found_run(request: Request) -> tuple[str, LastRun] | None:
    """Return the state file and the last run; ``None`` if there is none, or its first line is not written yet."""
    with suppress(NoRun, FileNotFoundError):
        if os.path.getsize(request.state_file()):
            return _last_run(request)
    return None


def _last_run(request: Request) -> tuple[str, LastRun]:
    path = request.state_file()
    return path, read_last_run(path)


def _one_task(last: LastRun, name: str) -> str:
    """Return the name of a task, also of the only instance of a mapped one.

    :raises SewerError: when there is no such task, or several; then with their states.
    """
    if name in last.outcomes:
        return name
    instances = [each for each in last.outcomes if each.startswith(f"{name}[")]
    if not instances:
        raise SewerError(unknown_name("task", name, list(last.outcomes)))
    if len(instances) == 1:
        return instances[0]
    width = max(map(len, instances))
    lines = [f"{each:<{width}}  {_present_state(last, last.outcomes[each].state)}" for each in instances[:_MOST]]
    more = [f"and {len(instances) - _MOST} more"] if len(instances) > _MOST else []
    raise SewerError(
        f"task {name!r} has {len(instances)} instances; name one, such as: sppe logs {shlex.quote(instances[0])}\n  "
        + "\n  ".join([*lines, *more])
    )


def _copy(file: BinaryIO) -> None:
    while data := file.read(_BLOCK):
        text = data.decode("utf-8", "backslashreplace")
        sys.stdout.write(_shown(text))
    sys.stdout.flush()


def _is_open(last: LastRun, task: str) -> bool:
    states = (TaskState.WAITING.value, TaskState.RUNNING.value)
    return last.is_running and last.outcomes[task].state in states


def _summary(last: LastRun) -> str:
    began, when = datetime.fromisoformat(last.began), _clock(last.began)
    if last.is_running:
        return f"running for {_since(began, datetime.now(UTC))}, since {when} ({last.process})"
    if last.ended is None:
        return f"killed, or its host stopped; it began at {when} ({last.process})"
    count = sum(outcome.state in _SUCCESSES for outcome in last.outcomes.values())
    duration = _since(began, datetime.fromisoformat(last.ended))
    return f"{count} of {len(last.outcomes)} tasks succeeded, in {duration}; it began at {when}"


def _clock(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _since(began: datetime, now: datetime) -> str:
    return duration_text(max((now - began).total_seconds(), 0.001))


def _present_state(last: LastRun, state: str) -> str:
    """Return the state of a task; in a run that was killed, no task runs or waits."""
    is_over = not last.is_running and state in (TaskState.WAITING.value, TaskState.RUNNING.value)
    return TaskState.STOPPED.value if is_over else state


def _shown(text: str) -> str:
    return printable(text) if sys.stdout.isatty() else text
