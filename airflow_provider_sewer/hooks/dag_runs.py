"""Query for the end of DAG runs, to keep files that one of them still uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

_ACTIVE_STATES = ["queued", "running"]


def has_ended(ti: RuntimeTaskInstanceProtocol, dag_id: str, run_id: str) -> bool:
    """Return whether a DAG run has ended or was deleted; ``False`` if Airflow does not answer.

    :param ti: the task instance that sends the query.
    :param dag_id: the DAG.
    :param run_id: its run.
    """
    try:
        return ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=_ACTIVE_STATES) == 0
    except Exception:  # no error of the query implies that the run has ended
        return False
