"""Protocol of the backend that runs tasks as jobs of a cluster instead of on this machine.

:mod:`airflow_provider_sewer.slurm.workflow_backend` implements it. The runner does not import it, since Slurm builds on
the execution of tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.job_order import AheadSlot
    from airflow_provider_sewer.execution.output import Sink
    from airflow_provider_sewer.execution.task_runner import TaskRunner
    from airflow_provider_sewer.execution.task_usage import TaskUsage


class Try(NamedTuple):
    """Try of a task in a run.

    :param number: 1 for the first one.
    :param is_last: whether no other one follows a failure.
    """

    number: int = 1
    is_last: bool = True


class TaskRun(Protocol):
    """One attempt at a task, on this machine or as a job."""

    def decision(self, reran: Sequence[str] = (), reran_elsewhere: Sequence[str] = ()) -> tuple[Decision, Any]:
        """Return whether the task has to run, and its former result if it does not."""

    def command(self) -> str:
        """Return a digest of the command."""

    def run(self, sink: Sink, *, on_start: Callable[[str, str | None], None] | None = None) -> Any:
        """Run the task, commit its products, and return its result."""

    @property
    def usage(self) -> TaskUsage:
        """Return the usage of the attempt, once it has ended."""

    def stop(self, *, at_once: bool = False) -> None:
        """End the attempt; from a signal handler or another thread."""


class ClusterJobs(Protocol):
    """The tasks of a workflow that become jobs of a cluster."""

    ahead: bool

    def runs_on_slurm(self, task: Task) -> bool:
        """Return whether a task becomes a job."""

    def check(self, tasks: Iterable[Task]) -> None:
        """Check the settings of all tasks.

        :raises SewerError: for a task that cannot become a job.
        """

    def not_ahead_reason(self, task: Task, before: Iterable[Task]) -> str | None:
        """Return the reason for which a task cannot be submitted before the end of others, if there is one."""

    def runner_of(
        self, task: Task, run: TaskRunner, turn: AheadSlot, notify: Callable[[str], None], try_: Try
    ) -> TaskRun:
        """Return an attempt at a task as a job."""

    def cancel_latest(self, task: Task, notify: Callable[[str], None]) -> None:
        """Cancel the job that an earlier run has left of a task."""
