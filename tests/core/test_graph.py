"""Edges come from ``>>``, from paths and from results; an invalid one is named before anything runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_sewer import Dependency, External, Ignored, Product, Task, Workflow
from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from tests.core.growth import LINEAR, growth


def makes(name: str, *products: object, needs: object = (), **fields: object) -> Task:
    """Return a task that makes and needs paths."""
    return Task(name, "m", products=products, dependencies=needs, **fields)


def refused(*tasks: Task, edges: object = ()) -> str:
    """Return why tasks are no workflow."""
    with pytest.raises(InvalidWorkflow) as caught:
        Workflow("w", tasks, edges)
    return str(caught.value)


def test_task_runs_after_producers_of_its_dependencies() -> None:
    """In any order of writing, and merged with the explicit edges."""
    a, b, c = makes("a", "x"), makes("b", "y", needs="x"), makes("c", needs=["x", "y"])

    workflow = Workflow("w", [c, b, a], [(a, c)])

    assert workflow.order == ("a", "b", "c")
    assert workflow.edge_reasons.reasons == {
        "a": {},
        "b": {"a": ("x",)},
        "c": {"a": ("", "x"), "b": ("y",)},
    }


def test_dependency_matches_products_inside_and_around_it() -> None:
    """Either way the maker runs first; a name that only begins the same is something else."""
    assert Workflow("w", [makes("a", "data/"), makes("b", needs="data/part/x.txt")]).upstream["b"] == ("a",)
    whole = [makes("a", "data/x"), makes("b", "data/sub/y"), makes("c", "data-2/z"), makes("d", needs="data")]
    assert Workflow("w", whole).edges == [("b", "d"), ("a", "d")]


def test_product_paths_are_relative_to_workdir(tmp_path) -> None:
    """One text is two paths in two directories, and two texts may be one."""
    one, two = tmp_path / "one", tmp_path / "two"
    tasks = [
        makes("a", "x", workdir=one),
        makes("b", "x", workdir=two),
        makes("c", needs="../one/x", workdir=two),
        makes("d", needs=str(two / "x")),
    ]

    assert Workflow("w", tasks).edges == [("a", "c"), ("b", "d")]


def test_two_producers_of_one_path_raise_with_both_lines() -> None:
    """Also when it is written in two ways; and the error names the fix."""
    a, b = makes("a", "build/x.txt"), makes("b", "./build//x.txt")

    assert refused(a, b) == (
        f"{b.source}: two tasks produce './build//x.txt': 'a' ({a.source}) and 'b'; give one of them another path"
    )


def test_product_inside_another_product_raises() -> None:
    """Putting the directory in place would do away with it."""
    a, b = makes("a", "data/"), makes("b", "data/part/x")

    assert refused(a, b) == (
        f"{b.source}: product 'data/part/x' of task 'b' is inside 'data/', a product of task 'a' "
        f"({a.source}); move it elsewhere"
    )


def test_cycle_of_paths_is_drawn_with_paths() -> None:
    """Each step has the reason why one task comes after the other."""
    a = makes("a", "x", needs="z")
    b = makes("b", "y", needs="x")
    c = makes("c", "z", depends_on="b")

    message = refused(a, b, c)

    assert "Cyclic dependency:" in message
    assert (
        f"  a   ({a.source})\n    ↓  x\n  b   ({b.source})\n    ↓\n  c   ({c.source})\n    ↓  z\n  a   (again)"
        in message
    )


def test_path_as_product_and_dependency_raises() -> None:
    """Whether it is up to date could not be decided."""
    assert "task 'a' has 'x' as a product and as a dependency" in refused(makes("a", "x", needs="x"))
    assert "task 'a' has 'data' as a product and as a dependency" in refused(makes("a", "data/x", needs="data"))


def test_external_of_a_product_raises() -> None:
    """The message names the task that makes it and the marker to write."""
    a = makes("a", "x")

    message = refused(a, makes("b", needs=[External("x")]))

    assert f"task 'b': External('x') is produced by task 'a' ({a.source}); write Dependency('x')" in message


def test_product_declared_twice_with_other_options_raises() -> None:
    """Temporary and not, for one."""
    assert "task 'a' declares product 'x' twice with different options" in refused(
        makes("a", Product("x"), Product("x", temporary=True))
    )


def test_external_inputs_lists_dependencies_without_producer() -> None:
    """The model itself looks at no file."""
    workflow = Workflow("w", [makes("a", needs=["in.txt", External("out/there")])])

    assert [(task.name, dependency) for task, dependency in workflow.edge_reasons.external_inputs] == [
        ("a", Dependency("in.txt")),
        ("a", External("out/there")),
    ]


def test_result_parameter_adds_edge() -> None:
    """From the task that leaves it; one that is not there is named."""
    a = makes("a")
    b = Task("b", "m", {"seed": [a.result["seed"]]})

    assert Workflow("w", [b, a]).edges == [("a", "b")]
    assert f"task 'b' takes a.result['seed'], but the task at {a.source} is not part of the workflow" in refused(b)


def same(name: str, threads: int = 1, **fields: object) -> Task:
    """Return a task with the same product as others of its kind."""
    return Task(name, "m", {"out": Product("x"), "threads": Ignored(threads)}, **fields)


def test_equal_tasks_with_same_product_are_merged() -> None:
    """The first of them; who depends on the others depends on it, by task, by name and by path."""
    one, two = same("one"), same("two", threads=8)
    users = [makes("a", depends_on=two), makes("b", depends_on="two"), makes("c", needs="x")]

    workflow = Workflow("w", [one, two, *users], [(two, users[0])]).with_defaults(ExecutionSettings(workdir="/w"))

    assert list(workflow.tasks) == ["one", "a", "b", "c"]
    assert workflow.edges == [("one", "a"), ("one", "b"), ("one", "c")]


def test_merged_tasks_keep_all_upstream_tasks() -> None:
    """That one of them comes after another task is not forgotten."""
    first = makes("first")
    workflow = Workflow("w", [same("one"), same("two", depends_on=first), first])

    assert workflow.edges == [("first", "one")]


@pytest.mark.parametrize(
    "fields", [{"run_when": "stale"}, {"dependencies": ["y"]}, {"resources": {"gpu": 1}}, {"env": {"A": "1"}}]
)
def test_different_tasks_with_same_product_raise(fields) -> None:
    """Neither of them is chosen silently."""
    assert "two tasks produce 'x': 'one'" in refused(same("one"), same("two", **fields))


def test_subset_knows_excluded_producers_and_consumers() -> None:
    """Also once its settings are settled."""
    tasks = [makes("a", "x"), makes("b", "y", needs="x"), makes("c", needs=["x", "y"])]

    part = Workflow("w", tasks).subset({"a", "c"}).with_defaults(ExecutionSettings(workdir="/w"))

    assert part.edges == [("a", "c")]
    assert part.excluded.consumers["a", "x"] == ["b"]
    assert part.excluded.producers == {("c", "y"): "b"}


def test_subset_keeps_order_through_excluded_tasks() -> None:
    """Which still has to be there."""
    tasks = [makes("a"), makes("b", depends_on="a"), makes("c", depends_on="b")]

    assert Workflow("w", tasks).subset({"a", "c"}).edges == [("a", "c")]


@given(st.lists(st.lists(st.integers(0, 11), max_size=4), min_size=1, max_size=12), st.randoms())
def test_edges_match_paths(needs, chance) -> None:
    """Task n makes the path n and needs some of the paths before it; the rest comes from outside."""
    tasks = [
        makes(str(n), f"p/{n}", needs=[f"p/{m}" if m < n else f"in/{m}" for m in some]) for n, some in enumerate(needs)
    ]
    chance.shuffle(tasks)

    workflow = Workflow("w", tasks)

    assert set(workflow.edges) == {(str(m), str(n)) for n, some in enumerate(needs) for m in some if m < n}
    place = {name: at for at, name in enumerate(workflow.order)}
    assert all(place[up] < place[down] for up, down in workflow.edges)
    assert {(task.name, each.path) for task, each in workflow.edge_reasons.external_inputs} == {
        (str(n), f"in/{m}") for n, some in enumerate(needs) for m in some if m >= n
    }


@given(st.integers(2, 8), st.integers(0, 7), st.data())
def test_cycle_is_found_anywhere(length, start, data) -> None:
    """A chain of paths with one dependency backwards is a circle, and all in it are named."""
    low = min(start, length - 2)
    high = data.draw(st.integers(low + 1, length - 1))
    needs = [[f"p{n - 1}"] if n else [] for n in range(length)]
    needs[low].append(f"p{high}")

    message = refused(*(makes(f"task-{n}", f"p{n}", needs=needs[n]) for n in range(length)))

    assert all(f"  task-{n}   (" in message for n in range(low, high + 1))


def test_build_graph_takes_linear_time() -> None:
    """Nothing looks at every pair."""

    def make(count: int) -> None:
        tasks = [makes("0", "p/0"), *(makes(str(n), f"p/{n}", needs=[f"p/{n - 1}", "p/0"]) for n in range(1, count))]
        workflow = Workflow("w", tasks).with_defaults(ExecutionSettings(workdir="/w"))
        assert len(workflow.edges) == 2 * (count - 2) + 1

    assert growth(make, 1_500) <= LINEAR


def test_product_named_like_failed_product_raises() -> None:
    """A failure of the one would replace the product of the other."""
    one = Task("one", "m", {"out": Product("x")})
    other = Task("other", "m", {"out": Product("x.failed")})
    expected = r"task 'other' .* produces 'x\.failed', the name of product 'x' of task 'one' after a failure"
    with pytest.raises(InvalidWorkflow, match=expected):
        Workflow("w", [one, other])
