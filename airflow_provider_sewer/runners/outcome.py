"""How the tasks of a run end, and what those who watch it are told."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.core.freshness import Verdict
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.runners.output import Stream


class State(enum.Enum):
    """How far a task has come."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    UP_TO_DATE = "up to date"
    DONE = "done before"
    FAILED = "failed"
    NOT_RUN = "not run"
    STOPPED = "stopped"

    @property
    def is_success(self) -> bool:
        """Tell whether what comes after such a task may run."""
        return self in (State.SUCCEEDED, State.UP_TO_DATE, State.DONE)


class Outcome(NamedTuple):
    """How a task ended.

    :param state: what became of it.
    :param seconds: how long it ran.
    :param result: the value it left (see :class:`~airflow_provider_sewer.runners.module.ModuleResult`).
    :param reason: why it did not succeed, or did not run.
    """

    state: State
    seconds: float = 0.0
    result: Any = None
    reason: str = ""


class Observer(Protocol):
    """Somebody who is told what happens. Called from several threads; for one task, in order."""

    def judged(self, task: Task, verdict: Verdict, /) -> None:
        """Hear why a task runs; only of one that might not have had to."""

    def started(self, task: Task, command_line: str, workdir: str | None, /) -> None:
        """Hear that a task's process is about to start."""

    def told(self, task: Task, line: str, /) -> None:
        """Hear what becomes of a task's job, be it before it has started."""

    def output(self, task: Task, stream: Stream, pieces: Sequence[str], /) -> None:
        """Hear what a task has written (pieces as in :class:`~airflow_provider_sewer.runners.output.Sink`)."""

    def ended(self, task: Task, outcome: Outcome, /) -> None:
        """Hear how a task has ended, also one that never started."""
