"""Signal handling in `airflow dags test` and `dag.test()`, where SIGTERM and Ctrl-C end the whole run."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk.types import RuntimeTaskInstanceProtocol

#: The module of the handler that Airflow sets for SIGTERM before each try.
_TASK_RUNNER = "airflow.sdk.execution_time.task_runner"

#: DAG id and run id of the runs of this process that were interrupted.
_interrupted: set[tuple[str, str]] = set()


@contextmanager
def interruptible(ti: RuntimeTaskInstanceProtocol, *, is_supervised: bool) -> Iterator[None]:
    """Fail the task without a retry when its process gets SIGTERM or SIGINT, and all later tries of its run.

    Nothing changes on a worker, whose supervisor ends it. In a process without a supervisor, Airflow's handler calls
    ``on_kill`` and Airflow continues with the next try; between two tries the handler has no effect
    (``_run_task_and_map_outcome`` in Airflow 3.3). Therefore SIGTERM raises KeyboardInterrupt from here on, also while
    a trigger runs in this process and between two tries.

    :param is_supervised: whether the process has a supervisor.
    :raises AirflowFailException: if this run is or was interrupted.
    """
    if is_supervised or not _has_airflows_handler():
        yield
        return
    run = (str(ti.dag_id), str(ti.run_id))
    if run in _interrupted:
        raise AirflowFailException("This run was interrupted by SIGTERM or SIGINT; not starting further tasks")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        _interrupted.add(run)
        raise AirflowFailException("Interrupted by SIGTERM or SIGINT; not retrying") from None


def _has_airflows_handler() -> bool:
    return getattr(signal.getsignal(signal.SIGTERM), "__module__", None) == _TASK_RUNNER


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
