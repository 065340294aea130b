"""Gates: what stands in for the edges of two layers of tasks that are completely connected.

Every one of 50 tasks before every one of 50 others makes 2,500 edges, each of which the scheduler looks at again and
again. With a task between the layers that does nothing it is 100, and means the same: what comes after a gate runs when
all before it have succeeded, is skipped when one of them was, and has failed upstream when one of them failed. That
holds for tasks with the trigger rule ``all_success`` only, so no others are behind a gate. Nor is a mapped task before
one, for what is mapped after it may have to know how many instances it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.task_group.group import tie

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator

    from airflow_provider_sewer.task_group.group import Operator

#: How many edges two layers may have without a gate.
MOST_EDGES = 100


class Gate(NamedTuple):
    """Two layers of tasks, each task of the first one being before each of the second one.

    :param before: the first layer.
    :param after: the second layer.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]


def find_gates(before: Mapping[str, Collection[str]]) -> list[Gate]:
    """Find layers that are completely connected by more than :data:`MOST_EDGES` edges.

    The tasks of one of the layers have just the other layer for neighbours on that side; those of the other one may
    have more. No edge goes through two gates.

    :param before: the tasks before each task.
    """
    gates = _gates_of(before)
    after: dict[str, list[str]] = {}
    for down, ups in _without(before, gates):
        for up in ups:
            after.setdefault(up, []).append(down)
    return [*gates, *(Gate(gate.after, gate.before) for gate in _gates_of(after))]


def _gates_of(before: Mapping[str, Collection[str]]) -> list[Gate]:
    """Return the gates whose second layer has none but the first one before it."""
    after: dict[frozenset[str], list[str]] = {}
    for down, ups in before.items():
        after.setdefault(frozenset(ups), []).append(down)
    layers = (Gate(tuple(before[downs[0]]), tuple(downs)) for downs in after.values())
    return [gate for gate in layers if min(map(len, gate)) > 1 and len(gate.before) * len(gate.after) > MOST_EDGES]


def _without(before: Mapping[str, Collection[str]], gates: Iterable[Gate]) -> Iterator[tuple[str, Collection[str]]]:
    """Return for each task those before it that are not behind a gate."""
    behind: dict[str, set[str]] = {}
    for gate in gates:
        for down in gate.after:
            behind.setdefault(down, set()).update(gate.before)
    for down, ups in before.items():
        yield down, [up for up in ups if up not in behind[down]] if down in behind else ups


def connect(
    before: Mapping[str, Collection[str]], operators: Mapping[str, Operator], new_id: Callable[[str], str]
) -> None:
    """Set the edges between Airflow tasks, through gates where these are worth it.

    :param before: the tasks before each task, by the keys of ``operators``.
    :param operators: the Airflow tasks.
    :param new_id: returns an id that no other task of the group has.
    """
    can_be_before = {name for name, operator in operators.items() if _is_before(operator)}
    can_be_after = {name for name, operator in operators.items() if _is_after(operator)}
    gates = find_gates(
        {down: [up for up in ups if up in can_be_before] for down, ups in before.items() if down in can_be_after}
    )
    for gate in gates:
        join = _join(new_id("join"), gate)
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


def _join(task_id: str, gate: Gate) -> BaseOperator:
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
