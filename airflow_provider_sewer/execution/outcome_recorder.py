"""Observer of a run that records the states of its tasks in the state file."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.output import Stream
    from airflow_provider_sewer.execution.state_file import StateFile
    from airflow_provider_sewer.execution.task_states import Outcome


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
            self._state.record_outcome(task.name, outcome)
