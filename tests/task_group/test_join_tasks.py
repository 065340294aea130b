"""Completely connected layers of tasks, and the join tasks between them."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer.task_group import join_tasks
from airflow_provider_sewer.task_group.join_tasks import MOST_EDGES, find_dense_layers
from tests.task_group.drawing import can_be_drawn

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
    """Create join tasks between the smallest layers."""
    monkeypatch.setattr(join_tasks, "MOST_EDGES", 1)


def layer(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def before(edges) -> dict[str, list[str]]:
    """Return the upstream tasks of each task."""
    found: dict[str, list[str]] = {}
    for up, down in edges:
        found.setdefault(down, []).append(up)
    return found


def edges_of(found) -> set[tuple[str, str]]:
    """Return the edges replaced by join tasks."""
    return {edge for join in found for edge in product(join.before, join.after)}


def is_gated(group) -> bool:
    return "g.join" in group.children


def test_join_task_connects_dense_layers(expand):
    """50 + 50 edges replace 2,500; other tasks keep their edges."""
    group = expand(WIDE.replace("**fields", ""))
    join = group.children["g.join"]

    assert (len(join.upstream_task_ids), len(join.downstream_task_ids)) == (50, 50)
    assert sum(len(operator.downstream_task_ids) for operator in group) == 102
    assert group["extra"].upstream_task_ids == {"g.a0", "g.b0"}
    assert group["a0"].downstream_task_ids == {"g.join", "g.extra"}
    assert "2,500 edges from 50 tasks to the 50 tasks after them" in join.doc_md


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
def test_join_task_is_omitted_where_it_changes_states(expand, fields, arguments):
    """Trigger rules other than all_success, and wait_for_downstream."""
    group = expand(WIDE.replace("**fields", f"**{fields}"), **arguments)

    assert not is_gated(group)
    assert len(group["b7"].upstream_task_ids) == 50


def test_find_dense_layers_ignores_narrow_layers(expand):
    """Up to 100 edges are fine as they are."""
    assert not is_gated(expand("a = [Task(f'a{n}', 'job') for n in range(100)]\nTask('last', 'job', depends_on=a)"))
    ungrouped = dict.fromkeys([*layer("a", 10), *layer("b", 11)], "")
    assert find_dense_layers(before(product(layer("a", 10), layer("b", 10))), ungrouped, MOST_EDGES) == []
    assert len(find_dense_layers(before(product(layer("a", 10), layer("b", 11))), ungrouped, MOST_EDGES)) == 1


def test_join_task_ignores_default_args(expand):
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


def test_join_task_keeps_states_of_all_tasks(expand, run_dag, monkeypatch):
    """Failed and skipped upstream tasks have the same effect as without a join task."""
    plain = run_dag(expand(LAYERS).dag)
    monkeypatch.setattr(join_tasks, "MOST_EDGES", 1)
    gated = run_dag(expand(LAYERS).dag)

    joins = {name for name in gated.states if name.startswith("g.join")}
    assert len(joins) == len(CODES)
    assert plain.states == {name: state for name, state in gated.states.items() if name not in joins}
    assert [gated.states[f"g.b{case}_1"] for case in range(len(CODES))] == [
        "success", "upstream_failed", "skipped", "upstream_failed",
    ]  # fmt: skip
    assert gated.states["g.own"] == "success"


def test_mapped_task_is_after_join_task_but_never_before(expand, always_gated):
    """A task mapped over its results may need its instances."""
    group = expand("""
        a = [Task(f"a{n}", "job") for n in range(2)]
        b = Task("b", "job", {"exit": 0}, depends_on=a).map(exit=[0, 0])
        c = Task("c", "job", depends_on=[*a, *b])
        d = Task("d", "job", depends_on=[*a, *b])
    """)

    assert group["b"].upstream_task_ids == {"g.join"}
    assert group["c"].upstream_task_ids == group["d"].upstream_task_ids == {"g.join", "g.b"}


def test_find_dense_layers_finds_two_join_tasks(expand, always_gated):
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


#: Tasks of two layers, edges from those of the first one to those of the second, and the groups that they are in.
TASKS = [*layer("a", 5), *layer("b", 5)]
EDGES = st.sets(st.tuples(st.sampled_from(TASKS[:5]), st.sampled_from(TASKS[5:])))
GROUPS = st.fixed_dictionaries({name: st.sampled_from(["", "x", "x.y", "z"]) for name in TASKS})


@given(EDGES, st.one_of(st.just(dict.fromkeys(TASKS, "x")), GROUPS), st.data())
def test_find_dense_layers_keeps_exactly_all_edges(edges, groups, data):
    """No dependency is added or lost, with any groups."""
    most = data.draw(st.integers(1, 6))
    found = find_dense_layers(before(sorted(edges)), groups, most)
    assert edges_of(found) <= edges
    assert sum(len(join.before) * len(join.after) for join in found) == len(edges_of(found))
    assert all(len(join.before) * len(join.after) > most for join in found)
    if edges == set(product(TASKS[:5], TASKS[5:])) and len(set(groups.values())) == 1:
        assert [join.group for join in found] == list(set(groups.values()))


#: A workflow in a workflow, with two wide layers in it.
INNER = """
before = [Task(f"a{n}", "job") for n in range(20)]
after = [Task(f"b{n}", "job", depends_on=before) for n in range(20)]

@workflow
def inner():
    (Task("first", "job") >> [*before, *after]).run()

@workflow
def outer():
    inner()
"""
#: Two layers, part of either in a group; so many of the second one are not.
PARTLY = """
before = [*(Task(f"a{n}", "job", group="part") for n in range(20)), Task("a", "job")]
after = [Task(f"b{n}", "job", group="part", depends_on=before) for n in range(20)]
beside = [Task(f"c{n}", "job", depends_on=before) for n in range(OUTSIDE)]
"""


def joins(dag) -> set[str]:
    return {operator.task_id for operator in dag.tasks if operator.label.startswith("join")}


def orders(dag) -> set[tuple[str, str]]:
    """Return the pairs of tasks of which one comes right after the other, without join tasks."""
    gated = joins(dag)
    ups = {operator.task_id: operator.upstream_task_ids for operator in dag.tasks}
    through = {name: set().union(*(ups[up] if up in gated else {up} for up in ups[name])) for name in ups}
    return {(up, down) for down in ups if down not in gated for up in through[down]}


def test_join_task_is_in_common_group_of_its_layers(expand):
    """One outside of it would come before and after that group, which Airflow cannot draw."""
    group = expand(INNER, workflow="outer")

    assert can_be_drawn(group.dag)
    assert joins(group.dag) == {"g.inner.join"}
    assert group["b7"].upstream_task_ids == {"g.inner.join"}


def test_join_task_between_groups_is_in_their_parent_group(expand):
    """However deep in it they are; so it is without prefixes of ids as well."""
    source = """
        before = [Task(f"a{n}", "job", group="both.first.deep") for n in range(20)]
        after = [Task(f"b{n}", "job", group="both.second", depends_on=before) for n in range(20)]
    """
    dag = expand(source).dag
    assert can_be_drawn(dag)
    assert joins(dag) == {"g.both.join"}

    dag = expand(source, prefix_group_id=False).dag
    assert can_be_drawn(dag)
    assert dag.get_task("join").task_group.group_id == "both"


@pytest.mark.parametrize(("outside", "gates_of"), [(5, {"g.part.join"}), (6, {"g.part.join", "g.join"})])
def test_layers_partly_in_a_group_get_join_task_inside_and_outside(expand, outside, gates_of):
    """Each where the edges are more than 100."""
    source = PARTLY.replace("OUTSIDE", str(outside))
    dag = expand(source).dag

    assert can_be_drawn(dag)
    assert joins(dag) == gates_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join_tasks, "MOST_EDGES", 10**6)
        assert orders(dag) == orders(expand(source).dag)
