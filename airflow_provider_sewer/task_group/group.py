"""The TaskGroup that a workflow becomes."""

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

#: An Airflow task, or a mapped one.
Operator: TypeAlias = "BaseOperator | MappedOperator"


def tie(up: Operator, down: Operator) -> None:
    """Have an Airflow task run after another one, as ``>>`` does between tasks of one DAG.

    That would go through all ids of the DAG for each edge.
    """
    if up.get_dag() is not down.get_dag():
        up.set_downstream(down)  # which knows what to do, or why it cannot
        return
    up.downstream_task_ids.add(down.task_id)
    down.upstream_task_ids.add(up.task_id)


class _TasksByName(Mapping[str, Operator]):
    """The Airflow tasks of a DAG by the names of the tasks; what looks at one does not have the others made.

    :param dag: the DAG.
    :param task_ids: the ids by the names; some may have been left out of the DAG.
    """

    def __init__(self, dag: DAG, task_ids: Mapping[str, str]) -> None:
        self._known = dag.task_dict
        self._task_ids = task_ids

    def __getitem__(self, name: str) -> Operator:
        return self._known[self._task_ids[name]]

    def __iter__(self) -> Iterator[str]:
        there = set(self._known)  # on a worker, who goes through a part of them has all made
        return (name for name, task_id in self._task_ids.items() if task_id in there or task_id in self._known)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {operator}' for name, operator in self.items())}}}"


class SewerTaskGroup(TaskGroup):
    """A TaskGroup that knows which of its Airflow tasks a task has become: ``group["train"]``.

    :func:`~airflow_provider_sewer.task_group.sewer_task_group` makes it.
    """

    _task_ids: Mapping[str, str] = MappingProxyType({})

    def take(self, task_ids: Mapping[str, str]) -> None:
        """Note the ids of its Airflow tasks.

        :param task_ids: by the names of the tasks.
        """
        self._task_ids = dict(task_ids)

    @property
    def tasks_map(self) -> Mapping[str, Operator]:
        """Return the Airflow tasks by the names of the tasks.

        A mapped one is there under its own name, and under those of its tasks.
        """
        return _TasksByName(self.dag, self._task_ids)

    def __getitem__(self, name: str) -> Operator:
        """Return the Airflow task of a task.

        :raises InvalidWorkflow: when there is no task of this name, or it is left out.
        """
        tasks = self.tasks_map
        if name not in tasks:
            raise InvalidWorkflow(unknown_name("task", name, tasks), calling_line())
        return tasks[name]

    def __contains__(self, item: object) -> bool:
        """Tell whether there is a task of a name, or an Airflow task in this group."""
        return item in self.tasks_map if isinstance(item, str) else item in list(self)

    # Airflow copies groups, and what it declares as a group's own is all that is copied by itself.

    def __getstate__(self) -> dict[str, Any]:
        """Return all that a copy has to have."""
        own: Any = super()
        return {**own.__getstate__(), "_task_ids": dict(self._task_ids)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy."""
        own: Any = super()
        own.__setstate__(state)
        self._task_ids = state["_task_ids"]


class MappedSewerTaskGroup(SewerTaskGroup, MappedTaskGroup):
    """One of which there are several instances."""
