"""TaskGroup of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.sdk import BaseOperator, TaskGroup
from airflow.sdk.definitions.taskgroup import MappedTaskGroup

from airflow_provider_sewer.core.errors import InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.source import calling_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import DAG
    from airflow.sdk.definitions.mappedoperator import MappedOperator

#: Airflow task, mapped or not.
Operator: TypeAlias = "BaseOperator | MappedOperator"


def set_edge(up: Operator, down: Operator) -> None:
    """Set a dependency between two Airflow tasks, as ``>>`` does.

    ``>>`` would iterate over all task ids of the DAG for each edge.
    """
    if up.get_dag() is not down.get_dag():
        up.set_downstream(down)  # Airflow assigns the DAG, or raises
        return
    up.downstream_task_ids.add(down.task_id)
    down.upstream_task_ids.add(up.task_id)


class _TasksByName(Mapping[str, Operator]):
    """Airflow tasks of a DAG by task name; a lookup does not build the other tasks.

    :param dag: the DAG.
    :param task_ids: ids by task name; the DAG may lack some of them.
    """

    def __init__(self, dag: DAG, task_ids: Mapping[str, str]) -> None:
        self._known = dag.task_dict
        self._task_ids = task_ids

    def __getitem__(self, name: str) -> Operator:
        return self._known[self._task_ids[name]]

    def __iter__(self) -> Iterator[str]:
        built = set(self._known)  # on a worker, iteration over tasks builds all of them
        return (name for name, task_id in self._task_ids.items() if task_id in built or task_id in self._known)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {operator}' for name, operator in self.items())}}}"


class SewerTaskGroup(TaskGroup):
    """TaskGroup with lookup of Airflow tasks by task name: ``group["train"]``.

    :func:`~airflow_provider_sewer.task_group.sewer_task_group` creates it.
    """

    _task_ids: Mapping[str, str] = MappingProxyType({})

    def set_task_ids(self, task_ids: Mapping[str, str]) -> None:
        """Set the ids of its Airflow tasks.

        :param task_ids: ids by task name.
        """
        self._task_ids = dict(task_ids)

    @property
    def tasks_map(self) -> Mapping[str, Operator]:
        """Return the Airflow tasks by task name.

        A mapped Airflow task is listed under its own name and under the names of its tasks.
        """
        return _TasksByName(self.dag, self._task_ids)

    def __getitem__(self, name: str) -> Operator:
        """Return the Airflow task of a task.

        :raises InvalidWorkflow: when no selected task has this name.
        """
        tasks = self.tasks_map
        if name not in tasks:
            raise InvalidWorkflow(unknown_name("task", name, tasks), calling_line())
        return tasks[name]

    def __contains__(self, item: object) -> bool:
        """Return whether the group contains a task name or an Airflow task."""
        return item in self.tasks_map if isinstance(item, str) else item in list(self)

    # Airflow copies groups with only the attributes that its own class declares.

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to copy."""
        own: Any = super()
        return {**own.__getstate__(), "_task_ids": dict(self._task_ids)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state of a copy."""
        own: Any = super()
        own.__setstate__(state)
        self._task_ids = state["_task_ids"]


class MappedSewerTaskGroup(SewerTaskGroup, MappedTaskGroup):
    """Mapped task group of a workflow."""
