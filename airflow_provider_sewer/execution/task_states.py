"""States of tasks in a run, and their outcomes."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from airflow_provider_sewer.execution.task_usage import NO_USAGE, TaskUsage


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
    :param tries: how often it was tried.
    """

    state: TaskState
    seconds: float = 0.0
    result: Any = None
    reason: str = ""
    usage: TaskUsage = NO_USAGE
    tries: int = 1

    def text(self, duration: str) -> str:
        """Return it for a reader, such as ``succeeded after 12.3 s``.

        :param duration: its duration; empty if it did not run.
        """
        text = f"{self.state.value} after {duration}" if duration else self.state.value
        return f"{text} (try {self.tries})" if self.tries > 1 else text
