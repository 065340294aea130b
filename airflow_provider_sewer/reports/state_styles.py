"""Words, signs and colours of the states of tasks in a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.execution.task_states import TaskState

if TYPE_CHECKING:
    from airflow_provider_sewer.execution.run_record import RunRecord, TaskRecord


class ShownState(NamedTuple):
    """Appearance of a state: a word, a class of :data:`~airflow_provider_sewer.exporters.svg.STYLE`, and a sign."""

    word: str
    style: str
    sign: str


SHOWN = {
    TaskState.FAILED: ShownState("failed", "failed", "✗"),
    TaskState.STOPPED: ShownState("stopped", "stopped", "■"),
    TaskState.UPSTREAM_FAILED: ShownState("upstream failed", "upstream", "-"),
    TaskState.RUNNING: ShownState("running", "running", "▶"),
    TaskState.WAITING: ShownState("waiting", "waiting", "…"),
    TaskState.SUCCEEDED: ShownState("succeeded", "succeeded", "✓"),
    TaskState.UP_TO_DATE: ShownState("up to date", "cached", "="),
    TaskState.RESUMED: ShownState("resumed", "cached", "="),
}
#: State of a task whose run was killed.
UNKNOWN = ShownState("unknown, the run was killed", "stopped", "?")


def shown_state(run: RunRecord, task: TaskRecord) -> ShownState:
    """Return the appearance of a task in a run."""
    is_open = task.state in (TaskState.RUNNING, TaskState.WAITING)
    return UNKNOWN if is_open and not run.is_running else SHOWN[task.state]
