"""Tasks and edges make a workflow, which is checked as a whole."""

from __future__ import annotations

import pytest

from airflow_provider_sewer import Product, Task, Workflow
from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.source import SourceLine


def task(name: str, depends_on: object = ()) -> Task:
    """Make a task whose module does not matter."""
    return Task(name, "m", depends_on=depends_on)


def test_workflow_combines_edges_and_depends_on():
    """Edges of ``>>`` and of ``depends_on`` are merged, each edge once."""
    a, b = task("a"), task("b")
    c = task("c", depends_on=[a, "b"])

    workflow = Workflow("w", [a, b, c], [(a, b), (a, c)])

    assert workflow.upstream == {"a": (), "b": ("a",), "c": ("a", "b")}
    assert workflow.edges == [("a", "b"), ("a", "c"), ("b", "c")]
    assert workflow.order == ("a", "b", "c")


def test_depends_on_accepts_later_task():
    """Names are looked up when all tasks are known."""
    assert Workflow("w", [task("b", depends_on="a"), task("a")]).order == ("a", "b")


def test_workflow_keeps_order_of_tasks():
    """The order of the file is the order of lists, tables and log files."""
    assert list(Workflow("w", [task("z"), task("a"), task("m")]).tasks) == ["z", "a", "m"]


def test_duplicate_task_name_raises_with_both_lines():
    """The line of the one and of the other."""
    one = task("same")
    other = Task("same", "another")

    with pytest.raises(InvalidWorkflow) as caught:
        Workflow("w", [one, other])

    assert str(caught.value) == (
        f"{other.source}: two tasks are named 'same'; the other one is at {one.source}; rename one"
    )


def test_same_task_twice_is_merged():
    """Naming a task again in a list is no second task."""
    a = task("a")

    assert list(Workflow("w", [a, a]).tasks) == ["a"]


def test_merged_tasks_stay_merged_in_subset():
    """A name of the second of them, in an edge or a result, still means the first."""
    first, second = (Task(name, "m", {"out": Product("x")}) for name in ("first", "second"))
    after, user = task("after"), Task("user", "m", {"seed": second.result["seed"]})
    whole = Workflow("w", [first, second, after, user], [(second, after)])

    for other in (whole.with_defaults(ExecutionSettings(python="python3")), whole.subset(["first", "after", "user"])):
        assert list(other.tasks) == ["first", "after", "user"]
        assert other.edges == [("first", "after"), ("first", "user")]
        assert other.name_of(second) == "first"


def test_unknown_dependency_raises_with_known_names():
    """The message names both tasks and the nearest name."""
    c = task("c", depends_on="prepare")

    with pytest.raises(InvalidWorkflow) as caught:
        Workflow("w", [task("prepared"), c])

    assert str(caught.value) == (
        f"{c.source}: task 'c' depends on a task that is not part of the workflow: "
        "unknown task 'prepare'; did you mean 'prepared'? Known: 'prepared', 'c'."
    )


def test_dependency_on_other_task_of_same_name_raises():
    """A task that is not run is not mistaken for one that is run and has its name."""
    meant, run = Task("train", "one"), Task("train", "another")

    with pytest.raises(InvalidWorkflow, match="depends on a task that is not part of the workflow: 'train' at "):
        Workflow("w", [run, task("test", depends_on=meant)])


def test_cycle_is_drawn_with_lines():
    """Each task of the circle with its line, in the order they would run, the first one again at the end."""
    a, b, c = (task(name) for name in "abc")

    with pytest.raises(InvalidWorkflow) as caught:
        Workflow("w", [a, b, c], [(a, b), (b, c), (c, a)], source=SourceLine("flow.py", 7))

    assert str(caught.value).splitlines() == [
        "flow.py:7: Cyclic dependency:",
        f"  a   ({a.source})",
        "    ↓",
        f"  b   ({b.source})",
        "    ↓",
        f"  c   ({c.source})",
        "    ↓",
        "  a   (again)",
        "Remove one of these edges.",
    ]


@pytest.mark.parametrize("depends_on", ["a", ["a", "a"]])
def test_depends_on_itself_raises(depends_on):
    """The smallest circle there is."""
    a = task("a", depends_on=depends_on)

    with pytest.raises(InvalidWorkflow, match="task 'a' depends on itself"):
        Workflow("w", [a])


def test_edge_to_itself_raises():
    """``a >> a`` is no workflow."""
    a = task("a")

    with pytest.raises(InvalidWorkflow, match="task 'a' depends on itself"):
        Workflow("w", [a], (a >> a).edges())


def test_cycle_of_5000_tasks_is_drawn_shortened():
    """Its beginning and its end are shown, and how many are left out between them."""
    tasks = [task(f"t{i}") for i in range(5000)]

    with pytest.raises(InvalidWorkflow) as caught:
        Workflow("w", tasks, zip(tasks, [*tasks[1:], tasks[0]], strict=True))

    lines = str(caught.value).splitlines()
    assert len(lines) < 40
    assert "  … 4,990 more tasks …" in lines
    assert lines[1].split()[0] == lines[-2].split()[0]


def test_unknown_name_lists_some_of_5000_names():
    """A message stays readable; the name that was probably meant comes first."""
    tasks = [task(f"step_{i}") for i in range(5000)]

    with pytest.raises(InvalidWorkflow) as caught:
        Workflow("w", [*tasks, task("last", depends_on="step-4321")])

    message = str(caught.value)
    assert "did you mean 'step_4321'?" in message
    assert message.endswith(" and 4971 more.")


def test_workflow_repr_shows_name_and_tasks():
    """So it is found again in a debugger."""
    assert repr(Workflow("w", [task("a")])) == "Workflow('w', tasks=['a'])"


def test_dependency_on_merged_task_survives_subset():
    """The second of two equal tasks is the first one, wherever the workflow goes."""
    first, second = task("a"), task("a")
    flow = Workflow("w", [first, second, task("b", depends_on=second), task("c", depends_on=second)])

    settled = flow.with_defaults(ExecutionSettings.checked(workdir="/data"))

    assert settled.edges == [("a", "b"), ("a", "c")]
    assert settled.subset(["a", "c"]).edges == [("a", "c")]
    assert settled.name_of(second) == "a"


def test_with_workdir_finds_edges_of_paths_again():
    """Two spellings of a path are one only in a known working directory."""
    flow = Workflow("w", [Task("a", "m", products="x"), Task("b", "m", dependencies="/data/x")])
    assert flow.edges == []
    assert flow.with_workdir("/data").edges == [("a", "b")]


def test_with_workdir_without_paths_returns_workflow_itself():
    """Nothing in it depends on the working directory."""
    flow = Workflow("w", [task("a"), task("b", depends_on="a")])
    assert flow.with_workdir("/data") is flow
