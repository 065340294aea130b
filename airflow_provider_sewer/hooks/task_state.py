"""Query for the state of a task instance, to distinguish a user's request from Airflow's own bookkeeping.

Airflow calls ``on_kill`` when a user marks or clears a task. It also does so when a scheduler was restarted, when
heartbeats were late, and when a paused triggerer finds its triggers assigned to another one (apache/airflow#73454).
The state of the task instance distinguishes these.
"""

from __future__ import annotations

import enum
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

#: States after which no further try follows.
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
#: State set only when a user clears a running task (``clear_task_instances`` in Airflow 3.3). A task without a state
#: may have been cleared while deferred, or reset by a scheduler that took its worker for dead; the next try
#: distinguishes these.
_CLEARED = "restarting"


class UserRequest(enum.Enum):
    """A user's request, derived from the state of a task instance."""

    NONE = "none"  #: Airflow only moves the task instance between its processes.
    END = "end"  #: The task instance has ended, or is deleted.
    CLEAR = "clear"  #: The task instance is to run again from the start.


class TaskState(NamedTuple):
    """State of a task instance in Airflow.

    :param request: the user's request.
    :param text: the state, or the reason for a missing answer, for a log.
    :param is_running: whether a process runs the task instance.
    """

    request: UserRequest
    text: str
    is_running: bool = False


def read_task_state(ti: RuntimeTaskInstanceProtocol | None, timeout: float) -> TaskState:
    """Return the state of a task instance, with no user request if Airflow does not answer.

    The query goes through the supervisor of this worker or triggerer. A thread sends it, as a signal handler may have
    interrupted the main thread during another query.

    :param ti: the task instance; ``None`` if Airflow has not set it.
    :param timeout: seconds to wait for the answer.
    """
    if ti is None:
        return TaskState(UserRequest.NONE, "unknown: the trigger has no task instance")
    answers: SimpleQueue[TaskState] = SimpleQueue()
    threading.Thread(target=lambda: answers.put(_query(ti)), name="sewer-task-state", daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except Empty:
        return TaskState(UserRequest.NONE, f"unknown: no answer in {timeout:g} s")


def _query(ti: RuntimeTaskInstanceProtocol) -> TaskState:
    # Imported here: Airflow's processes have loaded it already, and DAG files parse faster without it.
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = -1 if ti.map_index is None else ti.map_index
    try:
        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, map_index=map_index, task_ids=[ti.task_id], run_ids=[ti.run_id]
        )
    except Exception as error:  # no error of the query implies a state of the task instance
        return TaskState(UserRequest.NONE, f"unknown: {type(error).__name__}: {error}")
    name = ti.task_id if map_index < 0 else f"{ti.task_id}_{map_index}"
    of_run: dict[str, Any] = states.get(ti.run_id) or {}
    if name not in of_run:
        return TaskState(UserRequest.END, "deleted")
    state = of_run[name]
    request = UserRequest.END if state in _ENDED else UserRequest.CLEAR if state == _CLEARED else UserRequest.NONE
    return TaskState(request, str(state or "without a state"), is_running=state == "running")
