"""Runs of `airflow dags test` and `dag.test()`, whose tasks have no worker: SIGTERM and Ctrl-C end the whole run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

#: The module of the handler that Airflow sets for SIGTERM before each try.
_TASK_RUNNER = "airflow.sdk.execution_time.task_runner"

#: DAG id and run id of the runs of this process that were interrupted.
_interrupted: set[tuple[str, str]] = set()


@contextmanager
def interruptible(context: Context, *, is_supervised: bool) -> Iterator[None]:
    """Fail the task without a retry when its process gets SIGTERM or SIGINT, and all later tries of its run.

    A worker's process is left alone: its supervisor ends it. In a process without a supervisor, Airflow's handler calls
    ``on_kill`` and Airflow goes on with the next try; between two tries the handler has no effect at all
    (``_run_task_and_map_outcome`` in Airflow 3.3). Therefore SIGTERM raises KeyboardInterrupt from here on, also while
    a trigger runs in this process and between two tries.

    :param is_supervised: whether the process has a supervisor.
    :raises AirflowFailException: when this run is or was interrupted.
    """
    if is_supervised or not _has_airflows_handler():
        yield
        return
    run = (str(context["ti"].dag_id), str(context["ti"].run_id))
    if run in _interrupted:
        raise AirflowFailException("This run was interrupted by SIGTERM or SIGINT; no further task of it is started")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        _interrupted.add(run)
        raise AirflowFailException("Interrupted by SIGTERM or SIGINT; not trying again") from None


def _has_airflows_handler() -> bool:
    return getattr(signal.getsignal(signal.SIGTERM), "__module__", None) == _TASK_RUNNER


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
