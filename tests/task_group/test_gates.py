"""Layers of tasks that are completely connected, and the gates between them."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer.task_group import gates
from airflow_provider_sewer.task_group.gates import MOST_EDGES, find_gates

WIDE = """
before = [Task(f"a{n}", "job") for n in range(50)]
after = [Task(f"b{n}", "job", depends_on=before, **fields) for n in range(50)]
extra = Task("extra", "job", depends_on=before[0])
after[0] >> extra
"""

#: Pairs of layers; the tasks of a first one end with these exit codes, of which 99 is to skip.
CODES = [(0, 0), (0, 1), (99, 0), (99, 1)]
LAYERS = f"""
skips = {{"skip_on_exit_code": 99}}
for case, codes in enumerate({CODES}):
    before = [Task(f"a{{case}}_{{n}}", "job", {{"exit": code}}, operator_kwargs=skips) for n, code in enumerate(codes)]
    after = [Task(f"b{{case}}_{{n}}", "job", depends_on=before) for n in range(2)]
Task("own", "job", depends_on=[*before, after[0]], operator_kwargs={{"trigger_rule": "all_done"}})
"""


@pytest.fixture
def always_gated(monkeypatch):
    """Have gates between the smallest of layers."""
    monkeypatch.setattr(gates, "MOST_EDGES", 1)


def layer(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def before(edges) -> dict[str, list[str]]:
    """Return what is before each task."""
    found: dict[str, list[str]] = {}
    for up, down in edges:
        found.setdefault(down, []).append(up)
    return found


def edges_of(found) -> set[tuple[str, str]]:
    """Return the edges that gates stand for."""
    return {edge for gate in found for edge in product(gate.before, gate.after)}


def is_gated(group) -> bool:
    return "g.join" in group.children


def test_wide_layers_are_connected_through_a_gate(expand):
    """50 edges and 50 edges in place of 2,500; what is beside the layers has its own edges still."""
    group = expand(WIDE.replace("**fields", ""))
    join = group.children["g.join"]

    assert (len(join.upstream_task_ids), len(join.downstream_task_ids)) == (50, 50)
    assert sum(len(operator.downstream_task_ids) for operator in group) == 102
    assert group["extra"].upstream_task_ids == {"g.a0", "g.b0"}
    assert group["a0"].downstream_task_ids == {"g.join", "g.extra"}
    assert "2,500 edges from 50 tasks to the 50 after them" in join.doc_md


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({"operator_kwargs": {"trigger_rule": "all_done"}}, {}),
        ({}, {"operator_kwargs": {"trigger_rule": "none_failed"}}),
        ({}, {"overrides": {"b*": {"trigger_rule": "one_success"}}}),
        ({}, {"default_args": {"trigger_rule": "all_failed"}}),
        ({}, {"dag_args": {"trigger_rule": "none_skipped"}}),
        ({}, {"overrides": {"a*": {"wait_for_downstream": True}}}),
    ],
)
def test_what_a_gate_would_change_has_none(expand, fields, arguments):
    """Other trigger rules than all_success, and who waits for what comes right after it in an earlier run."""
    group = expand(WIDE.replace("**fields", f"**{fields}"), **arguments)

    assert not is_gated(group)
    assert len(group["b7"].upstream_task_ids) == 50


def test_narrow_layers_have_no_gate(expand):
    """Up to 100 edges are fine as they are."""
    assert not is_gated(expand("a = [Task(f'a{n}', 'job') for n in range(100)]\nTask('last', 'job', depends_on=a)"))
    assert find_gates(before(product(layer("a", 10), layer("b", 10)))) == []
    assert len(find_gates(before(product(layer("a", 10), layer("b", 11))))) == 1


def test_a_gate_does_nothing_whatever_the_defaults_of_the_dag_are(expand):
    """The scheduler alone sees to it: no worker, no callbacks, no looking back, no weight."""
    group = expand(
        WIDE.replace("**fields", ""),
        dag_args={
            "depends_on_past": True,
            "on_success_callback": print,
            "on_execute_callback": print,
            "priority_weight": 5,
        },
    )
    join = group.children["g.join"]

    assert join.inherits_from_empty_operator
    assert not (join.depends_on_past or join.on_success_callback or join.on_execute_callback or join.priority_weight)
    assert not (join.outlets or join.inlets)


def test_a_gate_changes_the_state_of_no_task(expand, run_dag, monkeypatch):
    """What failed before fails what comes after, what was skipped skips it; so it is without a gate."""
    plain = run_dag(expand(LAYERS).dag)
    monkeypatch.setattr(gates, "MOST_EDGES", 1)
    gated = run_dag(expand(LAYERS).dag)

    joins = {name for name in gated.states if name.startswith("g.join")}
    assert len(joins) == len(CODES)
    assert plain.states == {name: state for name, state in gated.states.items() if name not in joins}
    assert [gated.states[f"g.b{case}_1"] for case in range(len(CODES))] == [
        "success", "upstream_failed", "skipped", "upstream_failed",
    ]  # fmt: skip
    assert gated.states["g.own"] == "success"


def test_a_mapped_task_comes_after_a_gate_and_never_before_one(expand, always_gated):
    """Its instances may count for what is mapped after it."""
    group = expand("""
        a = [Task(f"a{n}", "job") for n in range(2)]
        b = Task("b", "job", {"exit": 0}, depends_on=a).map(exit=[0, 0])
        c = Task("c", "job", depends_on=[*a, *b])
        d = Task("d", "job", depends_on=[*a, *b])
    """)

    assert group["b"].upstream_task_ids == {"g.join"}
    assert group["c"].upstream_task_ids == group["d"].upstream_task_ids == {"g.join", "g.b"}


def test_two_layers_may_have_a_gate_each(expand, always_gated):
    """Ids are numbered in the order of the workflow, and a task of that name keeps its own."""
    group = expand("""
        a = [Task(f"a{n}", "job") for n in range(2)]
        b = [Task(f"b{n}", "job", depends_on=a) for n in range(2)]
        c = [Task(f"c{n}", "job", depends_on=b) for n in range(2)]
        Task("join", "job")
    """)

    assert group["c0"].upstream_task_ids == {"g.join_3"}
    assert group["b0"].upstream_task_ids == {"g.join_2"}
    assert group["join"].upstream_task_ids == set()


@given(st.sets(st.tuples(st.sampled_from(layer("a", 5)), st.sampled_from(layer("b", 5)))), st.data())
def test_gates_mean_exactly_the_edges_they_stand_for(edges, data):
    """No task gets before or after one that it was not tied to, and none loses one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "MOST_EDGES", data.draw(st.integers(1, 6)))
        found = find_gates(before(sorted(edges)))
        assert edges_of(found) <= edges
        assert sum(len(gate.before) * len(gate.after) for gate in found) == len(edges_of(found))
        assert all(len(gate.before) * len(gate.after) > gates.MOST_EDGES for gate in found)
        if edges == set(product(layer("a", 5), layer("b", 5))):
            assert len(found) == 1
    assert MOST_EDGES == 100
