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
    from collections.abc import Callable, Iterable, Mapping

    from airflow.sdk import BaseOperator

    from airflow_provider_sewer.task_group.group import Operator

#: How many edges two layers may have without a gate.
MOST_EDGES = 100

#: An edge: what is before, and what is after.
Edge = tuple[str, str]


class Gate(NamedTuple):
    """Two layers of tasks, each task of the first one being before each of the second one.

    :param before: the first layer.
    :param after: the second layer.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]


def find_gates(edges: Iterable[Edge]) -> list[Gate]:
    """Find layers that are completely connected by more than :data:`MOST_EDGES` edges.

    The tasks of one of the layers have just the other layer for neighbours on that side; those of the other one may
    have more. No edge goes through two gates.
    """
    edges = list(edges)
    gates = _gates_of(edges)
    through = edges_of(gates)
    others = _gates_of((down, up) for up, down in edges if (up, down) not in through)
    return [*gates, *(Gate(gate.after, gate.before) for gate in others)]


def edges_of(gates: Iterable[Gate]) -> set[Edge]:
    """Return the edges that gates stand for."""
    return {(up, down) for gate in gates for up in gate.before for down in gate.after}


def _gates_of(edges: Iterable[Edge]) -> list[Gate]:
    """Return the gates whose second layer has none but the first one before it."""
    before: dict[str, list[str]] = {}
    for up, down in edges:
        before.setdefault(down, []).append(up)
    after: dict[frozenset[str], list[str]] = {}
    for down, ups in before.items():
        after.setdefault(frozenset(ups), []).append(down)
    layers = (Gate(tuple(before[downs[0]]), tuple(downs)) for downs in after.values())
    return [gate for gate in layers if min(map(len, gate)) > 1 and len(gate.before) * len(gate.after) > MOST_EDGES]


def connect(edges: Iterable[Edge], operators: Mapping[str, Operator], new_id: Callable[[str], str]) -> None:
    """Set the edges between Airflow tasks, through gates where these are worth it.

    :param edges: the edges, by the keys of ``operators``.
    :param operators: the Airflow tasks.
    :param new_id: returns an id that no other task of the group has.
    """
    edges = list(edges)
    before = {name for name, operator in operators.items() if _is_before(operator)}
    after = {name for name, operator in operators.items() if _is_after(operator)}
    gates = find_gates(edge for edge in edges if edge[0] in before and edge[1] in after)
    for gate in gates:
        join = _join(new_id("join"), gate)
        for name in gate.before:
            tie(operators[name], join)
        for name in gate.after:
            tie(join, operators[name])
    through = edges_of(gates)
    for edge in edges:
        if edge not in through:
            tie(operators[edge[0]], operators[edge[1]])


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
