"""Airflow tasks created on lookup.

A worker parses the DAG file of the task that it runs. For a task of a workflow it needs only this task, because the
task does not depend on its neighbours at run time. Other tasks are created when the DAG file looks them up by id or
name. When the DAG file iterates over tasks, all tasks and edges are created.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import get_parsing_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow.sdk import DAG, TaskGroup

#: Functions in which Airflow itself iterates over tasks: to set dependencies of a group, to compare DAGs, or to find a
#: free id.
_AIRFLOW_ITERATORS = frozenset({"_set_relatives", "__eq__", "__hash__", "get_unique_task_id"})
#: Function and module in which Python executes an imported file; Airflow imports DAG files.
_IMPORTING = ("exec_module", "importlib")


class TaskFactory(NamedTuple):
    """Functions that create the Airflow tasks of a workflow.

    :param by_id: creates the task of an id in its DAG and group, if the id belongs to the workflow.
    :param rest: creates all missing tasks and the edges; returns all ids in order.
    """

    by_id: Callable[[str], object]
    rest: Callable[[], Sequence[str]]


def running_task(dag: DAG) -> str | None:
    """Return the id of the task that this process parses a DAG for; empty if it belongs to another DAG.

    :returns: ``None`` if the process needs the whole DAG.
    """
    parsing = get_parsing_context()
    if parsing.dag_id is None or parsing.task_id is None:
        return None
    return parsing.task_id if parsing.dag_id == dag.dag_id else ""


def builds_only_running_task(dag: DAG) -> bool:
    """Return whether the running task belongs to a workflow that was expanded earlier in the DAG file."""
    return isinstance(dag.task_dict, _LazyTaskDict)


def install_lazy_tasks(dag: DAG, groups: Iterable[TaskGroup], factory: TaskFactory) -> None:
    """Create tasks on lookup in a DAG or its groups, and when a DAG file iterates over them."""
    for holder, name in ((dag, "task_dict"), *((group, "children") for group in groups)):
        known = getattr(holder, name)
        if not isinstance(known, _LazyTaskDict):
            known = _LazyTaskDict(known)
            setattr(holder, name, known)
        known.factories.append(factory)


class _LazyTaskDict(dict[str, Any]):
    """Dictionary of tasks by id that creates missing tasks on lookup.

    Iteration covers the tasks that exist when it starts: all tasks, if a DAG file iterates.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        super().__init__(known)
        self.factories: list[TaskFactory] = []

    def __missing__(self, key: str) -> Any:
        for factory in self.factories:
            factory.by_id(key)
            if super().__contains__(key):
                return super().__getitem__(key)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a task, or ``default`` for an unknown id."""
        try:
            return self[key]
        except KeyError:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self._snapshot())

    def __len__(self) -> int:
        return len(self._snapshot())

    def keys(self) -> Any:
        """Return the ids of the tasks."""
        return self._snapshot().keys()

    def values(self) -> Any:
        """Return the tasks."""
        return self._snapshot().values()

    def items(self) -> Any:
        """Return the tasks by id."""
        return self._snapshot().items()

    def __reduce__(self) -> Any:
        """Copy as a plain dictionary of the existing tasks."""
        return dict, (dict(super().items()),)

    def _snapshot(self) -> dict[str, Any]:
        if _is_called_by_dag_file():
            for factory in self.factories:
                self._arrange(factory.rest())
        return dict(super().items())

    def _arrange(self, ids: Sequence[str]) -> None:
        """Sort the tasks of a workflow, starting at the position of the first one created."""
        existing = dict(super().items())
        own = {key: existing[key] for key in ids if key in existing}
        first = next((at for at, key in enumerate(existing) if key in own), 0)
        others = [(key, value) for key, value in existing.items() if key not in own]
        self.clear()
        self.update([*others[:first], *own.items(), *others[first:]])


def _is_called_by_dag_file() -> bool:
    """Return whether the caller is a DAG file being executed, rather than Airflow itself."""
    frame = sys._getframe(2)
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code.co_name in _AIRFLOW_ITERATORS:
            return False
        if frame.f_code.co_name == _IMPORTING[0] and _IMPORTING[1] in frame.f_code.co_filename:
            return True
    return False
