"""Check of whether Airflow's Graph and Grid can show a DAG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.serialization.serialized_objects import DagSerialization

if TYPE_CHECKING:
    from airflow.sdk import DAG


def can_be_drawn(dag: DAG) -> bool:
    """Return whether the members of each group can be sorted, as the API server does."""
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    try:
        for group in read.task_group_dict.values():
            group.topological_sort()
    except ValueError as error:
        assert "cyclic" in str(error)
        return False
    return True
