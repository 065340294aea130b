"""Ask Airflow whether DAG runs have ended, to keep a file that one of them still uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

_UNDER_WAY = ["queued", "running"]


def has_ended(ti: RuntimeTaskInstanceProtocol, dag_id: str, run_id: str) -> bool:
    """Tell whether a DAG run has ended or was deleted; a run of which Airflow says nothing has not.

    :param ti: the task instance that asks.
    :param dag_id: the DAG.
    :param run_id: its run.
    """
    try:
        return ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=_UNDER_WAY) == 0
    except Exception:  # whatever it is, it says nothing about the run
        return False
