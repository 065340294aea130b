"""Graphs of any tasks and any ties: the edges are the stated ones, and each cycle is found."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer import Dependency, Product, Task, Workflow
from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings

#: How one task can run after another: a dependency on one of its products, or an explicit edge.
PATHS = {"file": "p{}", "inside": "d{}/some/where", "around": "a{}"}
WORDS = ("stated", "by name", "by task", "result")


class Tie(NamedTuple):
    """One task after another.

    :param up: the number of the one.
    :param down: the number of the other.
    :param how: one of :data:`PATHS` or of :data:`WORDS`.
    :param twins: whether the one, and whether the other, is a second, equal task.
    """

    up: int
    down: int
    how: str
    twins: tuple[bool, bool] = (False, False)


class Graph:
    """Tasks that are tied, and the workflow that comes of them.

    :param count: how many tasks, but for their twins.
    :param ties: their ties.
    :param made: the order in which they are made, and given to the workflow.
    """

    def __init__(self, count: int, ties: list[Tie], made: list[int]) -> None:
        self.ties = [self._possible(tie, made) for tie in ties]
        self._results: dict[int, list[int]] = {number: [] for number in range(count)}
        for tie in self.ties:
            if tie.how == "result":
                self._results[tie.down].append(tie.up)
        self.tasks: dict[str, Task] = {}
        for number in made:
            for is_twin in (False, True):
                self.tasks[self.name(number, is_twin)] = self._task(number, is_twin)
        stated = [tie for tie in self.ties if tie.how == "stated"]
        self.stated = [(self._end(tie, 0), self._end(tie, 1)) for tie in stated]

    @staticmethod
    def name(number: int, is_twin: bool) -> str:
        return f"{'twin' if is_twin else 'task'}-{number}"

    @property
    def pairs(self) -> set[tuple[int, int]]:
        """Return the order that the ties require: for each task, its upstream tasks."""
        return {(tie.up, tie.down) for tie in self.ties}

    def workflow(self, order: list[str] | None = None) -> Workflow:
        names = order or list(self.tasks)
        return Workflow("w", [self.tasks[name] for name in names], self.stated)

    def reasons(self, tie: Tie) -> set[str]:
        """Return all reasons for which the one task of a tie runs after the other."""
        same = [each for each in self.ties if each[:2] == tie[:2]]
        return {PATHS[each.how].format(each.up) if each.how in PATHS else "" for each in same}

    def _possible(self, tie: Tie, made: list[int]) -> Tie:
        """Return a possible tie: a task's arguments cannot contain a later task."""
        is_later = made.index(tie.up) >= made.index(tie.down)
        how = "by name" if is_later and tie.how in ("by task", "result") else tie.how
        # The arguments of twins must be equal, otherwise they are two tasks.
        return tie._replace(
            how=how, twins=(tie.twins[0] and how in WORDS, tie.twins[1] and how not in ("result", *PATHS))
        )

    def _task(self, number: int, is_twin: bool) -> Task:
        own = [tie for tie in self.ties if tie.down == number]
        before = [tie for tie in own if tie.twins[1] == is_twin]
        by_name = [self.name(tie.up, tie.twins[0]) for tie in before if tie.how == "by name"]
        by_task = [self._end(tie, 0) for tie in before if tie.how == "by task"]
        return Task(
            self.name(number, is_twin),
            "m",
            {
                "out": [Product(f"p{number}"), Product(f"d{number}/"), Product(f"a{number}/x")],
                "in": [Dependency(PATHS[tie.how].format(tie.up)) for tie in own if tie.how in PATHS],
                "taken": [self._end(tie, 0).result for tie in own if tie.how == "result"],
            },
            depends_on=[*by_name, *by_task],
        )

    def _end(self, tie: Tie, end: int) -> Task:
        return self.tasks[self.name(tie[end], tie.twins[end])]


@st.composite
def graphs(draw, *, with_circles: bool = False) -> Graph:
    """Make a graph; without circles, each task is tied only to tasks of a lower number."""
    count = draw(st.integers(2, 6))
    numbers = st.integers(0, count - 1)
    hows = st.sampled_from([*PATHS, *WORDS])
    ties = draw(st.lists(st.builds(Tie, numbers, numbers, hows, st.tuples(st.booleans(), st.booleans())), max_size=9))
    ties = [tie._replace(up=min(tie[:2]), down=max(tie[:2])) if not with_circles else tie for tie in ties]
    ties = [tie for tie in ties if tie.up != tie.down]
    return Graph(count, ties, draw(st.permutations(range(count))))


def numbered(names: object) -> object:
    """Return the numbers of tasks, whichever of two twins is meant."""
    if isinstance(names, str):
        return int(names.rpartition("-")[2])
    return tuple(numbered(name) for name in names)


def reachable(pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return all upstream tasks, indirect ones included."""
    found = set(pairs)
    while more := {(a, d) for a, b in found for c, d in pairs if b == c} - found:
        found |= more
    return found


@settings(max_examples=100, deadline=None)
@given(graphs(), st.randoms())
def test_build_graph_has_exactly_the_given_edges(graph, chance) -> None:
    """In any form, in any order of tasks, and though each is there twice: twins are one task."""
    names = list(graph.tasks)
    chance.shuffle(names)

    for workflow in (
        graph.workflow(),
        graph.workflow(names),
        graph.workflow().with_defaults(ExecutionSettings(workdir="/w")),
    ):
        assert set(map(numbered, workflow.edges)) == graph.pairs
        assert len(workflow.tasks) == len(graph.tasks) / 2
        place = {name: at for at, name in enumerate(workflow.order)}
        assert all(place[up] < place[down] for up, down in workflow.edges)
        by_number = {numbered(name): name for name in workflow.tasks}
        for tie in graph.ties:
            assert set(workflow.edge_reasons.reasons[by_number[tie.down]][by_number[tie.up]]) == graph.reasons(tie)


@settings(max_examples=100, deadline=None)
@given(graphs(with_circles=True))
def test_workflow_draws_any_cycle(graph) -> None:
    """Each step of the drawn cycle is a tie, and the last one leads back to the first."""
    has_circle = any(up == down for up, down in reachable(graph.pairs))
    if not has_circle:
        graph.workflow()
        return

    with pytest.raises(InvalidWorkflow, match="Cyclic dependency:") as caught:
        graph.workflow()

    drawn = numbered(re.findall(r"^  (\S+)   \(", str(caught.value), re.MULTILINE))
    assert len(drawn) > 2
    assert drawn[0] == drawn[-1]
    assert len(set(drawn)) == len(drawn) - 1
    assert set(pairwise(drawn)) <= graph.pairs
    down, _, marker = caught.value.at
    assert any(
        numbered(down) == tie.down and (marker in graph.reasons(tie) or "" in graph.reasons(tie)) for tie in graph.ties
    )


@settings(max_examples=100, deadline=None)
@given(graphs(), st.data())
def test_subset_keeps_order_of_workflow(graph, data) -> None:
    """Excluded tasks connect their upstream and downstream tasks; producers of dependencies are known."""
    whole = graph.workflow()
    names = data.draw(st.sets(st.sampled_from(sorted(whole.tasks)), min_size=1))

    part = whole.subset(names)

    assert set(part.tasks) == names
    kept = {numbered(name) for name in names}
    order = reachable(set(map(numbered, part.edges)))
    assert order == {(up, down) for up, down in reachable(graph.pairs) if {up, down} <= kept}
    for (user, path), maker in part.excluded.producers.items():
        assert user in names and maker not in names
        assert path in whole.edge_reasons.reasons[user][maker]
