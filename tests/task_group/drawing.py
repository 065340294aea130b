"""What Airflow's Graph and Grid can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.serialization.serialized_objects import DagSerialization

if TYPE_CHECKING:
    from airflow.sdk import DAG


def can_be_drawn(dag: DAG) -> bool:
    """Tell whether what is in each group can be sorted, as the API server reads and sorts it."""
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    try:
        for group in read.task_group_dict.values():
            group.topological_sort()
    except ValueError as error:
        assert "cyclic" in str(error)
        return False
    return True
