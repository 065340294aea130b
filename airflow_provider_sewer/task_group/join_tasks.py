"""Join tasks: empty tasks that replace the edges between two completely connected layers of tasks.

Two such layers of 50 tasks have 2,500 edges, and the scheduler evaluates each of them repeatedly. With an empty task
between the layers there are 100 edges with the same meaning. A task after a join task runs when all tasks before it
have succeeded, is skipped when one was skipped, and is upstream_failed when one failed. This holds only for the trigger
rule ``all_success``, so tasks with another rule are never after a join task. Mapped tasks are never before a join task,
because a task mapped over their results may need the number of instances.

If tasks before and after a join task are in one group, the join task is in it too. Otherwise that group would come both
before and after the join task, which Airflow cannot draw (see :mod:`airflow_provider_sewer.task_group.group_cycles`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.groups import group_in
from airflow_provider_sewer.task_group.group import set_edge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator

    from airflow_provider_sewer.task_group.group import Operator
    from airflow_provider_sewer.task_group.subgroups import Subgroups

#: Maximum number of edges between two layers without a join task.
MOST_EDGES = 100

#: Base of the ids of join tasks.
JOIN = "join"


class JoinTask(NamedTuple):
    """Join task between two completely connected layers of tasks.

    :param before: the first layer.
    :param after: the second layer.
    :param group: the name of its group.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    group: str = ""

    def replaces_more_than(self, edges: int) -> bool:
        """Return whether it stands in place of more than so many edges, and saves some."""
        before, after = len(self.before), len(self.after)
        return min(before, after) > 1 and before * after > edges


def find_dense_layers(
    before: Mapping[str, Collection[str]], groups: Mapping[str, str], most_edges: int
) -> list[JoinTask]:
    """Find layers that are completely connected by more than a number of edges.

    On the side facing the other layer, the tasks of one layer have no other neighbours; those of the other layer may
    have more. Layers with tasks in a common group are split, with one join task each. No edge goes through two join
    tasks.

    :param before: the upstream tasks of each task.
    :param groups: the group name of each task.
    :param most_edges: this number.
    """
    joins = [part for join in _dense_layers_of(before, most_edges) for part in _in_groups(join, groups, most_edges)]
    after: dict[str, list[str]] = {}
    for down, ups in _without(before, joins):
        for up in ups:
            after.setdefault(up, []).append(down)
    turned = (JoinTask(join.after, join.before) for join in _dense_layers_of(after, most_edges))
    return [*joins, *(part for join in turned for part in _in_groups(join, groups, most_edges))]


def _dense_layers_of(before: Mapping[str, Collection[str]], most_edges: int) -> list[JoinTask]:
    """Return the join tasks whose second layer has no upstream tasks besides the first layer."""
    after: dict[frozenset[str], list[str]] = {}
    for down, ups in before.items():
        after.setdefault(frozenset(ups), []).append(down)
    layers = (JoinTask(tuple(before[downs[0]]), tuple(downs)) for downs in after.values())
    return [join for join in layers if join.replaces_more_than(most_edges)]


def _in_groups(join: JoinTask, groups: Mapping[str, str], most_edges: int) -> Iterator[JoinTask]:
    """Split a join task so that no part has tasks of the same subgroup both before and after it."""
    before, after = (_by_group(layer, join.group, groups) for layer in (join.before, join.after))
    parts, rest = [], before.pop("", [])
    for group, ups in before.items():
        if group not in after:
            rest += ups
            continue
        yield from _in_groups(JoinTask(tuple(ups), tuple(after[group]), group), groups, most_edges)
        others = (down for other, downs in after.items() if other != group for down in downs)
        parts.append(JoinTask(tuple(ups), tuple(others), join.group))
    parts.append(JoinTask(tuple(rest), join.after, join.group))
    yield from (part for part in parts if part.replaces_more_than(most_edges))


def _by_group(layer: Iterable[str], outer: str, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the tasks of a layer by subgroup of ``outer``; ``""`` holds those in no subgroup."""
    found: dict[str, list[str]] = {}
    for name in layer:
        found.setdefault(group_in(outer, groups[name]), []).append(name)
    return found


def _without(before: Mapping[str, Collection[str]], joins: Iterable[JoinTask]) -> Iterator[tuple[str, Collection[str]]]:
    """Yield each task with its upstream tasks that no join task connects to it."""
    joined: dict[str, set[str]] = {}
    for join in joins:
        for down in join.after:
            joined.setdefault(down, set()).update(join.before)
    for down, ups in before.items():
        yield down, [up for up in ups if up not in joined[down]] if down in joined else ups


def set_dependencies(
    before: Mapping[str, Collection[str]],
    operators: Mapping[str, Operator],
    groups: Mapping[str, str],
    subgroups: Subgroups,
) -> None:
    """Set the edges between Airflow tasks, through join tasks where these save edges.

    :param before: the upstream tasks of each task, by the keys of ``operators``.
    :param operators: the Airflow tasks.
    :param groups: their group names.
    :param subgroups: the groups.
    """
    may_be_before = {name for name, operator in operators.items() if _may_be_before(operator)}
    may_be_after = {name for name, operator in operators.items() if _may_be_after(operator)}
    joins = find_dense_layers(
        {down: [up for up in ups if up in may_be_before] for down, ups in before.items() if down in may_be_after},
        groups,
        MOST_EDGES,
    )
    for join in joins:
        with subgroups.get_or_create(join.group):
            operator = _join_operator(subgroups.new_id(JOIN, join.group), join)
        for name in join.before:
            set_edge(operators[name], operator)
        for name in join.after:
            set_edge(operator, operators[name])
    for down, ups in _without(before, joins):
        for up in ups:
            set_edge(operators[up], operators[down])


def _may_be_before(operator: Operator) -> bool:
    """Return whether a task may be before a join task: only its state matters, and only to its downstream tasks."""
    uses_downstream = operator.inherits_from_skipmixin or operator.wait_for_downstream
    return not (operator.is_mapped or operator.is_setup or operator.is_teardown or uses_downstream)


def _may_be_after(operator: Operator) -> bool:
    """Return whether a task may be after a join task: it runs once all upstream tasks have succeeded."""
    return operator.trigger_rule == "all_success" and not (operator.is_setup or operator.is_teardown)


def _join_operator(task_id: str, join: JoinTask) -> BaseOperator:
    from airflow.providers.standard.operators.empty import EmptyOperator

    # Default arguments must not apply: with them, the join task would do more than replace edges.
    fixed: dict[str, Any] = {
        "trigger_rule": "all_success",
        "depends_on_past": False,
        "wait_for_downstream": False,
        "priority_weight": 0,
        "on_execute_callback": None,
        "on_success_callback": None,
        "inlets": None,
        "outlets": None,
    }
    edges = len(join.before) * len(join.after)
    return EmptyOperator(
        task_id=task_id,
        doc_md=f"Replaces {edges:,} edges from {len(join.before)} tasks to the {len(join.after)} tasks after them.\n",
        **fixed,
    )
