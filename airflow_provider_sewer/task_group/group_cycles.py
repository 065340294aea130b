"""Groups that come both before and after something: Airflow runs what is in them, and cannot draw them.

Its Graph and Grid sort what is in a group, and count a group in it as one thing. That comes after what its first tasks
come after, those with no other task of it before them; Airflow looks at no others.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from airflow.sdk.exceptions import AirflowDagCycleException

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.tags_and_groups import IN_GROUP, group_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow.sdk import TaskGroup

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.task_group.subgroups import Subgroups


class _Member(NamedTuple):
    """What is right in a group: another group, or a task.

    :param group: the name of the group, ``""`` if it is a task.
    :param task: the name of the task, ``""`` if it is a group.
    """

    group: str
    task: str


#: For what is right in a group what comes before it there, and by which edge between two tasks.
_Before: TypeAlias = "dict[_Member, dict[_Member, tuple[str, str]]]"


def check_group_cycles(before: Mapping[str, Collection[str]], tasks: Mapping[str, Task], subgroups: Subgroups) -> None:
    """Refuse groups that Airflow could not draw, for then it shows nothing of the DAG.

    :param before: the names of the tasks before each one.
    :param tasks: the tasks by these names; of a mapped one, any of its tasks.
    :param subgroups: the groups that they are in, their Airflow tasks tied.
    :raises InvalidWorkflow: naming groups and tasks.
    """
    for outer, found in _before_in_groups(before, tasks).items():
        try:
            TopologicalSorter(found).prepare()
        except CycleError as error:
            if not _can_be_sorted(subgroups.get_or_create(outer)):
                raise _error([(up, down, *found[down][up]) for up, down in pairwise(error.args[1])], tasks) from None


def _before_in_groups(before: Mapping[str, Collection[str]], tasks: Mapping[str, Task]) -> dict[str, _Before]:
    """Return by groups what comes before what right in them, as far as Airflow looks at it.

    An edge counts in the innermost group that both its tasks are in. Of the edges to one task, those count that lie
    farthest inside: the groups around these do not begin with the task, so that Airflow looks at none of its others.
    """
    found: dict[str, _Before] = {outer: {} for outer in _outer_groups(tasks)}
    if not found:
        return found
    for name, ups in before.items():
        group = tasks[name].group
        shared = {up: _shared(tasks[up].group, group) for up in ups}
        outer = max(shared.values(), key=len, default="")
        if outer in found:
            others = found[outer].setdefault(_member(outer, name, tasks), {})
            for up in (up for up in ups if shared[up] == outer):
                others.setdefault(_member(outer, up, tasks), (up, name))
    return found


def _outer_groups(tasks: Mapping[str, Task]) -> dict[str, None]:
    """Return the names of the groups that have groups in them, ``""`` for that of the workflow."""
    found: dict[str, None] = {}
    for group in dict.fromkeys(task.group for task in tasks.values()):
        parts = group.split(IN_GROUP) if group else []
        found.update((IN_GROUP.join(parts[:depth]), None) for depth in range(len(parts)))
    return found


def _shared(one: str, other: str) -> str:
    """Return the innermost group that two groups are or lie in."""
    if one == other:
        return one
    pairs = zip(one.split(IN_GROUP), other.split(IN_GROUP), strict=False)
    return IN_GROUP.join(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _member(outer: str, name: str, tasks: Mapping[str, Task]) -> _Member:
    """Return what a task in a group is or lies in right in that."""
    inner = group_in(outer, tasks[name].group)
    return _Member(inner, "" if inner else name)


def _can_be_sorted(group: TaskGroup) -> bool:
    """Tell whether Airflow finds an order for what is in a group; the API server looks for it in the same way."""
    try:
        group.topological_sort()
    except AirflowDagCycleException:
        return False
    return True


def _error(edges: list[tuple[_Member, _Member, str, str]], tasks: Mapping[str, Task]) -> InvalidWorkflow:
    order = list(tasks)
    first = min((edge for edge in edges if edge[0].group), key=lambda edge: order.index(edge[2]))
    at = edges.index(first)
    edges = [*edges[at:], *edges[:at]]
    groups = sorted({member.group for edge in edges for member in edge[:2] if member.group})

    def told(member: _Member, name: str) -> str:
        return f"{name!r} ({tasks[name].source})" + (f" of group {member.group!r}" if member.group else "")

    lines = [
        f"  {told(up, name)} runs before {told(down, other)}" if up.group or down.group else "  …"
        for up, down, name, other in edges
    ]
    drawing = "\n".join(line for before, line in pairwise(["", *lines]) if line != before)
    said = "group {}, which comes" if len(groups) == 1 else "groups {}, which come"
    return InvalidWorkflow(
        f"Airflow's Graph and Grid cannot show {said.format(' and '.join(map(repr, groups)))} both before and after "
        f"something else:\n{drawing}\nGive what comes before and what comes after groups of their own, or what is "
        "between the same group. A group comes of a task's `group`, and of a workflow that is called in a workflow.",
        tasks[edges[0][2]].source,
    )
