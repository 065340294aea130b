"""Protocol of observers of a run, which receive its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.output import Stream
    from airflow_provider_sewer.execution.task_states import Outcome


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
