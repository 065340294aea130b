"""A stand-in for the supervisor of a worker or a triggerer, which answers for the state of a task instance."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def airflow_has_task_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Return a function that sets the state with which Airflow answers for every task instance.

    An exception is raised instead, as when the API server does not answer; ``...`` stands for a deleted run.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder, GetTaskStates, TaskStatesResult

    class Supervisor(CommsDecoder):
        state: Any = None

        def send(self, msg: Any) -> Any:
            assert isinstance(msg, GetTaskStates), msg
            if isinstance(self.state, Exception):
                raise self.state
            (task_id,), (run_id,) = msg.task_ids, msg.run_ids
            name = task_id if msg.map_index < 0 else f"{task_id}_{msg.map_index}"
            return TaskStatesResult(task_states={} if self.state is ... else {run_id: {name: self.state}})

    supervisor = object.__new__(Supervisor)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)

    def answer(state: Any) -> None:
        supervisor.state = state

    return answer


def task_instance(**fields: Any) -> SimpleNamespace:
    """Return as much of a task instance as an operator or a trigger reads; by default in its first of three tries."""
    known = {"dag_id": "dag", "run_id": "run", "task_id": "job", "map_index": -1, "try_number": 1, "max_tries": 2}

    def ignore(key: str, value: Any) -> None:
        """Stand in for ``xcom_push``."""

    return SimpleNamespace(**{**known, "xcom_push": ignore, **fields})
