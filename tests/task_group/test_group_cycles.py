"""Groups that come before and after each other."""

from __future__ import annotations

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.task_group import join_tasks
from tests.task_group.drawing import can_be_drawn

TASKS = [f"t{number}" for number in range(7)]
ERROR = "Airflow's Graph and Grid cannot show"
ADVICE = (
    "Use separate groups for the tasks before and after, or move the tasks between them into the same group. "
    "A group is created by a task's `group`, and by a workflow that is called in a workflow."
)
PAIRS = [(up, down) for down in TASKS for up in TASKS if up < down]


def lines_of(error) -> list[str]:
    """Return the lines of an error, with short paths."""
    return str(error.value).replace(str(error.value).partition("flow.py")[0], "").splitlines()


def test_group_cycle_through_task_raises_with_edges(expand):
    """Airflow would run it, and show neither Graph nor Grid."""
    with pytest.raises(InvalidWorkflow) as error:
        expand("""
            a = Task("a", "job", group="A")
            b = Task("b", "job")
            c = Task("c", "job", group="A")
            a >> b >> c
        """)
    assert lines_of(error) == [
        f"flow.py:3: {ERROR} group 'A', which comes both before and after something else:",
        "  'a' (flow.py:3) of group 'A' runs before 'b' (flow.py:4)",
        "  'b' (flow.py:4) runs before 'c' (flow.py:5) of group 'A'",
        ADVICE,
    ]


def test_group_cycle_between_groups_raises_with_edges(expand):
    """Also deep in others, and where tasks beside them lie between; those that are mapped have their own names."""
    with pytest.raises(InvalidWorkflow) as error:
        expand(
            """
            one = Task("one", "job", group="x")
            each = Task("each", "job", group="y.deep").map(exit=[0, 1])
            middle = [Task(name, "job") for name in ("m", "n", "o")]
            last = Task("last", "job", group="x.deeper")

            @workflow
            def inner():
                (one >> each >> middle[0] >> middle[1] >> middle[2] >> last).run()

            @workflow
            def outer():
                inner()
            """,
            workflow="outer",
        )
    assert lines_of(error)[:-1] == [
        f"flow.py:3: {ERROR} groups 'inner.x' and 'inner.y', which come both before and after something else:",
        "  'one' (flow.py:3) of group 'inner.x' runs before 'each' (flow.py:4) of group 'inner.y'",
        "  'each' (flow.py:4) of group 'inner.y' runs before 'm' (flow.py:5)",
        "  …",
        "  'o' (flow.py:5) runs before 'last' (flow.py:6) of group 'inner.x'",
    ]


def by_hand(groups, edges) -> DAG:
    """Return a DAG of Airflow's own tasks and groups."""
    with DAG("dag", schedule=None) as dag, TaskGroup("g") as root:
        made = {"": root}
        for name in ("x", "x.y", "z"):
            outer, _, inner = name.rpartition(".")
            if any(f"{group}.".startswith(f"{name}.") for group in groups.values()):
                made[name] = TaskGroup(inner, parent_group=made[outer])
        tasks = {name: EmptyOperator(task_id=name, task_group=made[group]) for name, group in groups.items()}
        for up, down in edges:
            tasks[up] >> tasks[down]
    return dag


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(
    st.fixed_dictionaries({name: st.sampled_from(["", "x", "x.y", "z"]) for name in TASKS}),
    st.one_of(st.sets(st.sampled_from(PAIRS)), st.sets(st.sampled_from([(a, b) for a, b in PAIRS if a < "t3" <= b]))),
)
def test_check_group_cycles_agrees_with_topological_sort(expand, groups, edges):
    """For any groups and edges, with and without join tasks."""
    lines = [f"{name} = Task({name!r}, 'job', group={group!r} or None)" for name, group in groups.items()]
    lines += [f"{up} >> {down}" for up, down in sorted(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(join_tasks, "MOST_EDGES", 1)
        if can_be_drawn(by_hand(groups, edges)):
            assert can_be_drawn(expand("\n".join(lines)).dag)
        else:
            with pytest.raises(InvalidWorkflow, match="cannot show group"):
                expand("\n".join(lines))
