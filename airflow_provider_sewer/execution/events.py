"""How the tasks of a run end, and what those who watch it are told."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.output import Stream


class TaskState(enum.Enum):
    """How far a task has come."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    UP_TO_DATE = "up to date"
    RESUMED = "done before"
    FAILED = "failed"
    UPSTREAM_FAILED = "not run"
    STOPPED = "stopped"

    @property
    def is_success(self) -> bool:
        """Tell whether what comes after such a task may run."""
        return self in (TaskState.SUCCEEDED, TaskState.UP_TO_DATE, TaskState.RESUMED)


class Outcome(NamedTuple):
    """How a task ended.

    :param state: what became of it.
    :param seconds: how long it ran.
    :param result: the value it left (see :class:`~airflow_provider_sewer.execution.module_runner.ModuleResult`).
    :param reason: why it did not succeed, or did not run.
    """

    state: TaskState
    seconds: float = 0.0
    result: Any = None
    reason: str = ""


class Observer(Protocol):
    """Somebody who is told what happens. Called from several threads; for one task, in order."""

    def on_decision(self, task: Task, verdict: Decision, /) -> None:
        """Hear why a task runs; only of one that might not have had to."""

    def on_start(self, task: Task, command_line: str, workdir: str | None, /) -> None:
        """Hear that a task's process is about to start."""

    def on_job_event(self, task: Task, line: str, /) -> None:
        """Hear what becomes of a task's job, be it before it has started."""

    def on_output(self, task: Task, stream: Stream, pieces: Sequence[str], /) -> None:
        """Hear what a task has written (pieces as in :class:`~airflow_provider_sewer.execution.output.Sink`)."""

    def on_end(self, task: Task, outcome: Outcome, /) -> None:
        """Hear how a task has ended, also one that never started."""
