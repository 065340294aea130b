"""A workflow: named tasks and the edges between them, checked as a whole."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from types import FunctionType
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from airflow_provider_sewer.core.errors import InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.recording import Run, note_workflow
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.task import Task

if TYPE_CHECKING:
    from airflow_provider_sewer.core.source import SourceLine

_NOT_PLAIN = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

#: How many tasks of a circle are drawn.
_LONGEST_DRAWING = 10

_Function = TypeVar("_Function", bound=Callable[..., Any])


def workflow(function: _Function = None) -> _Function:  # type: ignore[assignment]
    """Declare a function to be a workflow, under its own name.

    Called, it does what it says. To get its graph, it is recorded instead: every ``.run()`` in it
    adds to the graph and starts nothing, and consecutive ``.run()`` calls follow each other.

    :raises InvalidWorkflow: for anything but a plain function.
    """
    if not isinstance(function, FunctionType):
        given = "" if function is None else f"; {function!r} is none"
        raise InvalidWorkflow(f"@workflow stands above a function, without brackets{given}", calling_line())
    if function.__code__.co_flags & _NOT_PLAIN:
        raise InvalidWorkflow(
            f"workflow {function.__name__!r} is async or a generator; write a plain function with def", calling_line()
        )

    @functools.wraps(function)
    def declared(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    declared.__sewer_workflow__ = calling_line()  # type: ignore[attr-defined]
    note_workflow(function.__name__, declared)
    return declared  # type: ignore[return-value]


class Workflow:
    """Tasks by name, and for each the names of those that run before it.

    :param name: its name.
    :param tasks: its tasks, in the order they were named.
    :param edges: pairs of (task, task that runs after it), on top of what ``depends_on`` says.
    :param doc: what it is for.
    :param source: where it was declared.
    :param is_part: whether it is a part taken out of something larger; dependencies on tasks that are
        not in it are then left aside.
    :raises InvalidWorkflow: when two tasks have one name, a dependency is unknown, or tasks wait for
        each other in a circle.
    """

    def __init__(
        self,
        name: str,
        tasks: Iterable[Task],
        edges: Iterable[tuple[Task, Task]] = (),
        *,
        doc: str = "",
        source: SourceLine | None = None,
        is_part: bool = False,
    ) -> None:
        self.name = name
        self.doc = doc
        self.source = source
        self.tasks: dict[str, Task] = _by_name(tasks)
        self.upstream: dict[str, tuple[str, ...]] = _upstream(self.tasks, edges, is_part)
        self.order: tuple[str, ...] = _ordered(self)

    @classmethod
    def of_runs(
        cls,
        name: str,
        runs: Iterable[Run],
        *,
        stated: Iterable[tuple[Task, Task]] = (),
        doc: str = "",
        source: SourceLine | None = None,
        is_part: bool = False,
    ) -> Workflow:
        """Make a workflow of recorded runs, each following the one before.

        :param stated: edges that were stated outside of a run.
        :raises InvalidWorkflow: also when a task is run twice or none is, or an edge was stated for a task
            that does not belong to it.
        """
        settled: dict[int, Task] = {}
        edges: list[tuple[Task, Task]] = []
        first_run: dict[int, Run] = {}
        tails: tuple[Task, ...] = ()
        for run in runs:
            for task in run.chain.tasks():
                _refuse_second_run(task, run, first_run)
                settled[id(task)] = task.with_defaults(run.settings)
            edges += [(settled[id(up)], settled[id(down)]) for up, down in run.chain.edges()]
            edges += [(up, settled[id(down)]) for up in tails for down in run.chain.heads]
            tails = tuple(settled[id(task)] for task in run.chain.tails)
        if not settled:
            raise InvalidWorkflow(f"workflow {name!r} runs no task; end it with (a >> b).run()", source)
        edges += [_settled_edge(up, down, settled, source) for up, down in stated]
        return cls(name, settled.values(), edges, doc=doc, source=source, is_part=is_part)

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Return pairs of names (task, task that runs after it), in the order of the tasks."""
        return [(up, down) for down in self.tasks for up in self.upstream[down]]

    def __repr__(self) -> str:
        return f"Workflow({self.name!r}, tasks={list(self.tasks)})"


def _settled_edge(up: Task, down: Task, settled: Mapping[int, Task], source: SourceLine | None) -> tuple[Task, Task]:
    for task in (up, down):
        if id(task) not in settled:
            raise InvalidWorkflow(
                f"{up.name!r} >> {down.name!r} is stated, but {task.name!r} is not run; name it in the .run(), or take "
                "the edge out",
                source,
            )
    return settled[id(up)], settled[id(down)]


def _by_name(tasks: Iterable[Task]) -> dict[str, Task]:
    named: dict[str, Task] = {}
    for task in tasks:
        other = named.setdefault(task.name, task)
        if other is not task:
            raise InvalidWorkflow(
                f"two tasks are named {task.name!r}; the other one is at {other.source}; rename one", task.source
            )
    return named


def _upstream(
    tasks: Mapping[str, Task], edges: Iterable[tuple[Task, Task]], is_part: bool
) -> dict[str, tuple[str, ...]]:
    before: dict[str, dict[str, None]] = {name: {} for name in tasks}
    for up, down in edges:
        before[down.name][up.name] = None
    for task in tasks.values():
        for dependency in task.depends_on:
            why = _why_not_run(dependency, tasks)
            if why and not is_part:
                raise InvalidWorkflow(
                    f"task {task.name!r} depends on a task that this workflow does not run: {why}", task.source
                )
            if not why:
                before[task.name][_name(dependency)] = None
    return {name: tuple(names) for name, names in before.items()}


def _name(dependency: Task | str) -> str:
    return dependency.name if isinstance(dependency, Task) else dependency


def _why_not_run(dependency: Task | str, tasks: Mapping[str, Task]) -> str | None:
    """Return what is wrong with a dependency on a task that is not among these, else ``None``."""
    name = _name(dependency)
    if name not in tasks:
        return unknown_name("task", name, tasks)
    if isinstance(dependency, Task) and dependency.identity is not tasks[name].identity:
        return f"{name!r} at {dependency.source}; it runs another task of that name"
    return None


def _ordered(workflow: Workflow) -> tuple[str, ...]:
    try:
        return tuple(TopologicalSorter(workflow.upstream).static_order())
    except CycleError as error:
        raise InvalidWorkflow(_drawn(workflow, error.args[1]), workflow.source) from None


def _drawn(workflow: Workflow, cycle: list[str]) -> str:
    first, *rest = cycle[:-1]
    if not rest:
        return f"task {first!r} waits for itself ({workflow.tasks[first].source}); take that edge out"
    lines = [f"  {name}   ({workflow.tasks[name].source})" for name in (first, *rest)]
    if len(lines) > _LONGEST_DRAWING:
        half = _LONGEST_DRAWING // 2
        lines[half:-half] = [f"  … {len(lines) - 2 * half:,} more tasks …"]
    lines.append(f"  {first}   (again)")
    return "these tasks wait for each other in a circle:\n" + "\n    ↓\n".join(lines) + "\nTake one of these edges out."


def _refuse_second_run(task: Task, run: Run, first_run: dict[int, Run]) -> None:
    earlier = first_run.setdefault(id(task), run)
    if earlier is not run:
        raise InvalidWorkflow(
            f"task {task.name!r} is run a second time, after {earlier.source}; a workflow runs each task once. "
            f"For two branches write {task.name} >> [b, c]; to run it again, make a second Task.",
            run.source,
        )
