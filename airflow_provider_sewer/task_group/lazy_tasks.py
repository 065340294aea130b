"""Airflow tasks that are made when somebody asks for them.

A worker parses the DAG file of the task that it runs. If that is one of a workflow, it needs this one task of it:
nothing that such a task does depends on what is before or after it. Whatever else the DAG file asks for, by its id or
its name, is made when it does, and when it goes through them, all are made, with their edges.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import get_parsing_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow.sdk import DAG, TaskGroup

#: Where Airflow goes through tasks by itself: it ties some to a group, compares DAGs, or looks for an id that is free.
_BY_ITSELF = frozenset({"_set_relatives", "__eq__", "__hash__", "get_unique_task_id"})
#: Where Python executes a file that it imports, as Airflow has it import a DAG file.
_IMPORTING = ("exec_module", "importlib")


class TaskFactory(NamedTuple):
    """Who makes the Airflow tasks of a workflow.

    :param by_id: makes one, and with it its place in DAG and group, if it is one that it knows.
    :param rest: makes all that there are not yet, and the edges; returns the ids of all, in their order.
    """

    by_id: Callable[[str], object]
    rest: Callable[[], Sequence[str]]


def running_task(dag: DAG) -> str | None:
    """Return the id of the task that this process parses a DAG for; an empty one if it is a task of another DAG.

    :returns: ``None`` where the whole DAG is wanted.
    """
    wanted = get_parsing_context()
    if wanted.dag_id is None or wanted.task_id is None:
        return None
    return wanted.task_id if wanted.dag_id == dag.dag_id else ""


def builds_only_running_task(dag: DAG) -> bool:
    """Tell whether the task that this process parses a DAG for is one of a workflow that was expanded before."""
    return isinstance(dag.task_dict, _LazyTaskDict)


def install_lazy_tasks(dag: DAG, groups: Iterable[TaskGroup], maker: TaskFactory) -> None:
    """Have tasks be made when they are looked up in a DAG, or in its groups, and when a DAG file goes through them."""
    for holder, name in ((dag, "task_dict"), *((group, "children") for group in groups)):
        known = getattr(holder, name)
        if not isinstance(known, _LazyTaskDict):
            known = _LazyTaskDict(known)
            setattr(holder, name, known)
        known.makers.append(maker)


class _LazyTaskDict(dict[str, Any]):
    """Tasks by their ids: those that are there, and those that are made as they are looked up.

    What goes through it sees those that were there when it began: all of them, if it is a DAG file that does.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        super().__init__(known)
        self.makers: list[TaskFactory] = []

    def __missing__(self, key: str) -> Any:
        for maker in self.makers:
            maker.by_id(key)
            if super().__contains__(key):
                return super().__getitem__(key)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a task, or something else if there is no such task."""
        try:
            return self[key]
        except KeyError:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self._there())

    def __len__(self) -> int:
        return len(self._there())

    def keys(self) -> Any:
        """Return the ids of the tasks."""
        return self._there().keys()

    def values(self) -> Any:
        """Return the tasks."""
        return self._there().values()

    def items(self) -> Any:
        """Return the tasks by their ids."""
        return self._there().items()

    def __reduce__(self) -> Any:
        """Be copied as a plain dictionary, which asks nobody for anything."""
        return dict, (dict(super().items()),)

    def _there(self) -> dict[str, Any]:
        if _dag_file_goes_through():
            for maker in self.makers:
                self._arrange(maker.rest())
        return dict(super().items())

    def _arrange(self, ids: Sequence[str]) -> None:
        """Put tasks into their order, at the place of the first of them that was made."""
        there = dict(super().items())
        own = {key: there[key] for key in ids if key in there}
        first = next((at for at, key in enumerate(there) if key in own), 0)
        others = [(key, value) for key, value in there.items() if key not in own]
        self.clear()
        self.update([*others[:first], *own.items(), *others[first:]])


def _dag_file_goes_through() -> bool:
    """Tell whether it is a DAG file, as it is executed, that wants all of something, and not just Airflow."""
    frame = sys._getframe(2)
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code.co_name in _BY_ITSELF:
            return False
        if frame.f_code.co_name == _IMPORTING[0] and _IMPORTING[1] in frame.f_code.co_filename:
            return True
    return False
