"""Airflow tasks that are made when somebody asks for them.

A worker parses the DAG file of the task that it runs, and needs this one task of it. Whatever else the DAG file asks
for, by its id or its name, is made when it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import get_parsing_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow.sdk import DAG, TaskGroup


def running_task(dag: DAG) -> str | None:
    """Return the id of the task that this process parses a DAG for; an empty one if it is a task of another DAG.

    :returns: ``None`` where the whole DAG is wanted.
    """
    wanted = get_parsing_context()
    if wanted.dag_id is None or wanted.task_id is None:
        return None
    return wanted.task_id if wanted.dag_id == dag.dag_id else ""


def serve(dag: DAG, groups: Iterable[TaskGroup], make: Callable[[str], object]) -> None:
    """Have tasks be made when they are looked up in a DAG, or in its groups.

    :param make: makes a task by its id, and with it its place in DAG and group, if it is one that it knows.
    """
    for holder, name in ((dag, "task_dict"), *((group, "children") for group in groups)):
        known = getattr(holder, name)
        if not isinstance(known, _OnDemand):
            known = _OnDemand(known)
            setattr(holder, name, known)
        known.makers.append(make)


class _OnDemand(dict[str, Any]):
    """Tasks by their ids: those that are there, and those that are made as they are looked up.

    What goes through it sees those that were there when it began.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        super().__init__(known)
        self.makers: list[Callable[[str], object]] = []

    def __missing__(self, key: str) -> Any:
        for make in self.makers:
            make(key)
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
        return iter(list(super().__iter__()))

    def keys(self) -> Any:
        """Return the ids of the tasks that there are."""
        return dict(super().items()).keys()

    def values(self) -> Any:
        """Return the tasks that there are."""
        return dict(super().items()).values()

    def items(self) -> Any:
        """Return the tasks that there are, by their ids."""
        return dict(super().items()).items()

    def __reduce__(self) -> Any:
        """Be copied as a plain dictionary, which asks nobody for anything."""
        return dict, (dict(super().items()),)
