"""Task states, outcomes, and the protocol of observers of a run."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from airflow_provider_sewer.execution.task_usage import NO_USAGE, TaskUsage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.output import Stream


class TaskState(enum.Enum):
    """State of a task in a run."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    UP_TO_DATE = "up to date"
    RESUMED = "skipped"
    FAILED = "failed"
    UPSTREAM_FAILED = "upstream failed"
    STOPPED = "stopped"

    @property
    def is_success(self) -> bool:
        """Return whether downstream tasks may run."""
        return self in (TaskState.SUCCEEDED, TaskState.UP_TO_DATE, TaskState.RESUMED)


class Outcome(NamedTuple):
    """How a task ended.

    :param state: its final state.
    :param seconds: its duration.
    :param result: its result (see :class:`~airflow_provider_sewer.execution.module_runner.ModuleResult`).
    :param reason: why it did not succeed, or did not run.
    :param usage: its usage, if it ran.
    """

    state: TaskState
    seconds: float = 0.0
    result: Any = None
    reason: str = ""
    usage: TaskUsage = NO_USAGE

    def text(self, duration: str) -> str:
        """Return it for a reader, such as ``succeeded after 12.3 s``.

        :param duration: its duration; empty if it did not run.
        """
        return f"{self.state.value} after {duration}" if duration else self.state.value


class Observer(Protocol):
    """Receiver of the events of a run. Called from several threads; for one task, in order."""

    def on_decision(self, task: Task, decision: Decision, /) -> None:
        """Called with the reason why a task runs, if it could have been skipped."""

    def on_start(self, task: Task, command_line: str, workdir: str | None, /) -> None:
        """Called before a task's process starts."""

    def on_job_event(self, task: Task, line: str, /) -> None:
        """Called with a log line about a task's job, also before the task has started."""

    def on_output(self, task: Task, stream: Stream, pieces: Sequence[str], /) -> None:
        """Called with a task's output (pieces as in :class:`~airflow_provider_sewer.execution.output.Sink`)."""

    def on_end(self, task: Task, outcome: Outcome, /) -> None:
        """Called when a task has ended, or will never start."""
