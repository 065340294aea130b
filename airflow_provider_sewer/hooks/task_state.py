"""Ask Airflow for the state of a task instance, to tell a user's request from Airflow's own bookkeeping.

Airflow calls ``on_kill`` when a user marks or clears a task. It also does so when a scheduler was restarted, when
heartbeats were late, and when a paused triggerer finds its triggers assigned to another one (apache/airflow#73454).
The state of the task instance tells these apart.
"""

from __future__ import annotations

import enum
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

#: States in which no further try follows: the user, or the run, is done with the task instance.
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
#: Only a user's clear of a running task leaves this state (``clear_task_instances`` in Airflow 3.3). A task without a
#: state may have been cleared while it was deferred, or reset by a scheduler that took its worker for dead; the next
#: try tells these apart.
_CLEARED = "restarting"


class UserRequest(enum.Enum):
    """The user's request that shows in the state of a task instance."""

    NONE = "none"  #: Airflow only moves the task instance between its processes.
    END = "end"  #: The task instance has ended, or is deleted.
    CLEAR = "clear"  #: The task instance is to run again from the start.


class TaskState(NamedTuple):
    """What Airflow answers about a task instance.

    :param request: the user's request.
    :param text: the state, or why there is no answer, for a log.
    :param is_running: whether some process runs the task instance.
    """

    request: UserRequest
    text: str
    is_running: bool = False


def read_task_state(ti: RuntimeTaskInstanceProtocol | None, timeout: float) -> TaskState:
    """Return the state of a task instance; no request of a user where Airflow does not answer.

    The question goes through the supervisor of this process, of a worker or of a triggerer. A thread asks, as a signal
    handler may have interrupted the main thread in the middle of another question.

    :param ti: the task instance; ``None`` where Airflow has not named it.
    :param timeout: seconds to wait for the answer.
    """
    if ti is None:
        return TaskState(UserRequest.NONE, "unknown: the trigger has no task instance")
    answers: SimpleQueue[TaskState] = SimpleQueue()
    threading.Thread(target=lambda: answers.put(_asked(ti)), name="sewer-task-state", daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except Empty:
        return TaskState(UserRequest.NONE, f"unknown: no answer in {timeout:g} s")


def _asked(ti: RuntimeTaskInstanceProtocol) -> TaskState:
    # Imported in processes of Airflow, which have loaded it; a DAG file need not wait for it.
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = -1 if ti.map_index is None else ti.map_index
    try:
        states = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, map_index=map_index, task_ids=[ti.task_id], run_ids=[ti.run_id]
        )
    except Exception as error:  # whatever it is, it says nothing about the task instance
        return TaskState(UserRequest.NONE, f"unknown: {type(error).__name__}: {error}")
    name = ti.task_id if map_index < 0 else f"{ti.task_id}_{map_index}"
    of_run: dict[str, Any] = states.get(ti.run_id) or {}
    if name not in of_run:
        return TaskState(UserRequest.END, "deleted")
    state = of_run[name]
    request = UserRequest.END if state in _ENDED else UserRequest.CLEAR if state == _CLEARED else UserRequest.NONE
    return TaskState(request, str(state or "without a state"), is_running=state == "running")
