"""Detection of cycles between task groups, which Airflow can run but not draw.

Airflow's Graph and Grid sort the members of a group, and treat a subgroup as one member. A subgroup comes after the
upstream tasks of its root tasks, which have no upstream task in it; Airflow ignores the upstreams of other tasks.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from airflow.sdk.exceptions import AirflowDagCycleException

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.groups import IN_GROUP, group_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow.sdk import TaskGroup

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.task_group.subgroups import Subgroups


class _Member(NamedTuple):
    """Direct member of a group: a subgroup or a task.

    :param group: the name of the subgroup; ``""`` for a task.
    :param task: the name of the task; ``""`` for a subgroup.
    """

    group: str
    task: str


#: For each member of a group its upstream members, each with the edge between two tasks that causes it.
_Before: TypeAlias = "dict[_Member, dict[_Member, tuple[str, str]]]"


def check_group_cycles(before: Mapping[str, Collection[str]], tasks: Mapping[str, Task], subgroups: Subgroups) -> None:
    """Reject groups that Airflow cannot draw, because it would show nothing of the DAG.

    :param before: names of the upstream tasks of each task.
    :param tasks: the tasks by name; for a mapped task, any of its tasks.
    :param subgroups: their groups, with all dependencies set.
    :raises InvalidWorkflow: naming groups and tasks.
    """
    for outer, found in _before_in_groups(before, tasks).items():
        try:
            TopologicalSorter(found).prepare()
        except CycleError as error:
            if not _can_be_sorted(subgroups.get_or_create(outer)):
                raise _error([(up, down, *found[down][up]) for up, down in pairwise(error.args[1])], tasks) from None


def _before_in_groups(before: Mapping[str, Collection[str]], tasks: Mapping[str, Task]) -> dict[str, _Before]:
    """Return the dependencies between the members of each group, as far as Airflow uses them.

    An edge belongs to the innermost group of both its tasks. Only the innermost edges to a task count: in the outer
    groups the task is not a root task, so Airflow ignores its other edges.
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
    """Return the names of the groups with subgroups; ``""`` is the workflow's group."""
    found: dict[str, None] = {}
    for group in dict.fromkeys(task.group for task in tasks.values()):
        parts = group.split(IN_GROUP) if group else []
        found.update((IN_GROUP.join(parts[:depth]), None) for depth in range(len(parts)))
    return found


def _shared(one: str, other: str) -> str:
    """Return the innermost group that contains or is each of two groups."""
    if one == other:
        return one
    pairs = zip(one.split(IN_GROUP), other.split(IN_GROUP), strict=False)
    return IN_GROUP.join(part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _member(outer: str, name: str, tasks: Mapping[str, Task]) -> _Member:
    """Return the direct member of a group that is or contains a task."""
    inner = group_in(outer, tasks[name].group)
    return _Member(inner, "" if inner else name)


def _can_be_sorted(group: TaskGroup) -> bool:
    """Return whether Airflow can sort the members of a group; the API server sorts them in the same way."""
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

    def described(member: _Member, name: str) -> str:
        return f"{name!r} ({tasks[name].source})" + (f" of group {member.group!r}" if member.group else "")

    lines = [
        f"  {described(up, name)} runs before {described(down, other)}" if up.group or down.group else "  …"
        for up, down, name, other in edges
    ]
    drawing = "\n".join(line for before, line in pairwise(["", *lines]) if line != before)
    listed = " and ".join(map(repr, groups))
    subject = f"group {listed}, which comes" if len(groups) == 1 else f"groups {listed}, which come"
    return InvalidWorkflow(
        f"Airflow's Graph and Grid cannot show {subject} both before and after something else:\n{drawing}\n"
        "Use separate groups for the tasks before and after, or move the tasks between them into the same group. "
        "A group is created by a task's `group`, and by a workflow that is called in a workflow.",
        tasks[edges[0][2]].source,
    )
