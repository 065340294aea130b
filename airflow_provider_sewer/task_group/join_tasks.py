"""Gates: what stands in for the edges of two layers of tasks that are completely connected.

Every one of 50 tasks before every one of 50 others makes 2,500 edges, each of which the scheduler looks at again and
again. With a task between the layers that does nothing it is 100, and means the same: what comes after a gate runs when
all before it have succeeded, is skipped when one of them was, and has failed upstream when one of them failed. That
holds for tasks with the trigger rule ``all_success`` only, so no others are behind a gate. Nor is a mapped task before
one, for what is mapped after it may have to know how many instances it had.

Where a task before a gate and one after it lie in one group, so does the gate. Else that group would come both before
and after something else, which Airflow cannot draw (see :mod:`airflow_provider_sewer.task_group.group_cycles`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.tags_and_groups import group_in
from airflow_provider_sewer.task_group.group import tie

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator

    from airflow_provider_sewer.task_group.group import Operator
    from airflow_provider_sewer.task_group.subgroups import Subgroups

#: How many edges two layers may have without a gate.
MOST_EDGES = 100

#: What the ids of gates are made of.
JOIN = "join"


class JoinTask(NamedTuple):
    """Two layers of tasks, each task of the first one being before each of the second one.

    :param before: the first layer.
    :param after: the second layer.
    :param group: the name of the group that it is in.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    group: str = ""

    @property
    def is_worth_it(self) -> bool:
        """Tell whether it spares edges, and enough of them."""
        before, after = len(self.before), len(self.after)
        return min(before, after) > 1 and before * after > MOST_EDGES


def find_dense_layers(before: Mapping[str, Collection[str]], groups: Mapping[str, str]) -> list[JoinTask]:
    """Find layers that are completely connected by more than :data:`MOST_EDGES` edges.

    The tasks of one of the layers have just the other layer for neighbours on that side; those of the other one may
    have more. Of layers that share a group, parts have gates of their own. No edge goes through two gates.

    :param before: the tasks before each task.
    :param groups: the names of the groups that the tasks are in.
    """
    gates = [part for gate in _dense_layers_of(before) for part in _in_groups(gate, groups)]
    after: dict[str, list[str]] = {}
    for down, ups in _without(before, gates):
        for up in ups:
            after.setdefault(up, []).append(down)
    turned = (JoinTask(gate.after, gate.before) for gate in _dense_layers_of(after))
    return [*gates, *(part for gate in turned for part in _in_groups(gate, groups))]


def _dense_layers_of(before: Mapping[str, Collection[str]]) -> list[JoinTask]:
    """Return the gates whose second layer has none but the first one before it."""
    after: dict[frozenset[str], list[str]] = {}
    for down, ups in before.items():
        after.setdefault(frozenset(ups), []).append(down)
    layers = (JoinTask(tuple(before[downs[0]]), tuple(downs)) for downs in after.values())
    return [gate for gate in layers if gate.is_worth_it]


def _in_groups(gate: JoinTask, groups: Mapping[str, str]) -> Iterator[JoinTask]:
    """Return gates for edges of one, none of which has tasks of one and the same group in it before and after it."""
    before, after = (_by_group(layer, gate.group, groups) for layer in (gate.before, gate.after))
    parts, rest = [], before.pop("", [])
    for group, ups in before.items():
        if group not in after:
            rest += ups
            continue
        yield from _in_groups(JoinTask(tuple(ups), tuple(after[group]), group), groups)
        others = (down for other, downs in after.items() if other != group for down in downs)
        parts.append(JoinTask(tuple(ups), tuple(others), gate.group))
    parts.append(JoinTask(tuple(rest), gate.after, gate.group))
    yield from (part for part in parts if part.is_worth_it)


def _by_group(layer: Iterable[str], outer: str, groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the tasks of a layer by the groups in ``outer``; those that are in no group in it by ``""``."""
    found: dict[str, list[str]] = {}
    for name in layer:
        found.setdefault(group_in(outer, groups[name]), []).append(name)
    return found


def _without(before: Mapping[str, Collection[str]], gates: Iterable[JoinTask]) -> Iterator[tuple[str, Collection[str]]]:
    """Return for each task those before it that are not behind a gate."""
    behind: dict[str, set[str]] = {}
    for gate in gates:
        for down in gate.after:
            behind.setdefault(down, set()).update(gate.before)
    for down, ups in before.items():
        yield down, [up for up in ups if up not in behind[down]] if down in behind else ups


def set_dependencies(
    before: Mapping[str, Collection[str]],
    operators: Mapping[str, Operator],
    groups: Mapping[str, str],
    subgroups: Subgroups,
) -> None:
    """Set the edges between Airflow tasks, through gates where these are worth it.

    :param before: the tasks before each task, by the keys of ``operators``.
    :param operators: the Airflow tasks.
    :param groups: the names of the groups that they are in.
    :param subgroups: these groups.
    """
    can_be_before = {name for name, operator in operators.items() if _is_before(operator)}
    can_be_after = {name for name, operator in operators.items() if _is_after(operator)}
    gates = find_dense_layers(
        {down: [up for up in ups if up in can_be_before] for down, ups in before.items() if down in can_be_after},
        groups,
    )
    for gate in gates:
        with subgroups.get_or_create(gate.group):
            join = _join(subgroups.new_id(JOIN, gate.group), gate)
        for name in gate.before:
            tie(operators[name], join)
        for name in gate.after:
            tie(join, operators[name])
    for down, ups in _without(before, gates):
        for up in ups:
            tie(operators[up], operators[down])


def _is_before(operator: Operator) -> bool:
    """Tell whether nothing but its one state counts for what comes right after a task, and that only for this."""
    looks_at_what_is_next = operator.inherits_from_skipmixin or operator.wait_for_downstream
    return not (operator.is_mapped or operator.is_setup or operator.is_teardown or looks_at_what_is_next)


def _is_after(operator: Operator) -> bool:
    """Tell whether what counts for a task is that all before it have succeeded."""
    return operator.trigger_rule == "all_success" and not (operator.is_setup or operator.is_teardown)


def _join(task_id: str, gate: JoinTask) -> BaseOperator:
    from airflow.providers.standard.operators.empty import EmptyOperator

    # What default arguments say is for tasks that do something: with it, this would be more than an edge.
    plain: dict[str, Any] = {
        "trigger_rule": "all_success",
        "depends_on_past": False,
        "wait_for_downstream": False,
        "priority_weight": 0,
        "on_execute_callback": None,
        "on_success_callback": None,
        "inlets": None,
        "outlets": None,
    }
    edges = len(gate.before) * len(gate.after)
    return EmptyOperator(
        task_id=task_id,
        doc_md=f"Stands for the {edges:,} edges from {len(gate.before)} tasks to the {len(gate.after)} after them.\n",
        **plain,
    )
