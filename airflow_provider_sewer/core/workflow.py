"""A workflow: named tasks and the edges between them, checked as a whole."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from types import FunctionType
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.graph import EXPLICIT, Graph, TaskIndex, build_graph
from airflow_provider_sewer.core.recording import CalledWorkflow, Run, note_workflow
from airflow_provider_sewer.core.source import calling_line

if TYPE_CHECKING:
    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.source import SourceLine
    from airflow_provider_sewer.core.task import Task

_NOT_PLAIN = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

#: The name of a workflow that was given none; and the one that is meant where there are several.
DEFAULT_WORKFLOW = "workflow"

#: How many tasks of a circle are drawn.
_LONGEST_DRAWING = 10

_Function = TypeVar("_Function", bound=Callable[..., Any])


def workflow(function: _Function = None) -> _Function:  # type: ignore[assignment]
    """Declare a function to be a workflow, under its own name.

    Called, it does what it says. To get its graph, it is recorded instead: every ``.run()`` in it
    adds to the graph and starts nothing, and consecutive ``.run()`` calls follow each other. So do those of
    another workflow that is called in it; the tasks of that are a group of its name.

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
        with CalledWorkflow(function.__name__):
            return function(*args, **kwargs)

    declared.__sewer_workflow__ = calling_line()  # type: ignore[attr-defined]
    note_workflow(function.__name__, declared)
    return declared  # type: ignore[return-value]


class ExcludedTasks(NamedTuple):
    """What a part of a workflow has to do with the tasks that were left out of it.

    :param users: for each product, as (its task's name, its path), those of them that depend on it.
    :param makers: which of them makes a dependency, by the name of the task that has it and the path.
    """

    consumers: Mapping[tuple[str, str], list[str]]
    producers: Mapping[tuple[str, str], str]


class Workflow:
    """Tasks by name, and for each the names of those that run before it.

    Tasks that say the same are one: those of one name, and those that make the same products.

    :param name: its name.
    :param tasks: its tasks, in the order they were named.
    :param edges: pairs of (task, task that runs after it), on top of what ``depends_on`` says.
    :param doc: what it is for.
    :param source: where it was declared.
    :param is_part: whether it is a part taken out of something larger; dependencies on tasks that are
        not in it are then left aside.
    :param elsewhere: what else there is in something larger.
    :raises InvalidWorkflow: when two tasks that differ have one name, or make one path; a dependency is unknown,
        or tasks wait for each other in a circle.
    """

    def __init__(
        self,
        name: str,
        tasks: Iterable[Task],
        edges: Iterable[tuple[Task, Task]] = (),
        *,
        doc: str = "",
        source: SourceLine | None = None,
        is_subset: bool = False,
        excluded: ExcludedTasks | None = None,
    ) -> None:
        self.name = name
        self.doc = doc
        self.source = source
        self.given = list(tasks)  # with those that are one task with another, for what depends on them
        self.explicit_edges = list(edges)
        self.is_subset = is_subset
        self.excluded = excluded or ExcludedTasks({}, {})
        self._members = TaskIndex(self.given)
        self.tasks: dict[str, Task] = self._members.tasks
        self.edge_reasons: Graph = build_graph(self._members, self.explicit_edges, is_part=is_subset)
        self.upstream: dict[str, tuple[str, ...]] = {
            name: tuple(ups) for name, ups in self.edge_reasons.reasons.items()
        }
        self.order: tuple[str, ...] = _ordered(self)

    @functools.cached_property
    def mapped(self) -> dict[str, MappedTask]:
        """Return by name what of its tasks was mapped, where all tasks of that are here and none of them is another's.

        The tasks of it are those of the file; what the workflow says of them is with their namesakes here.
        """
        candidates = dict.fromkeys(task.mapped_task for task in self.tasks.values() if task.mapped_task is not None)
        return {
            mapped.name: mapped
            for mapped in candidates
            if all(task.name in self.tasks and self.tasks[task.name].mapped_task is mapped for task in mapped)
        }

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
                settled[id(task)] = task.with_defaults(run.settings).in_group(run.group)
            edges += [(settled[id(up)], settled[id(down)]) for up, down in run.chain.edges()]
            edges += [(up, settled[id(down)]) for up in tails for down in run.chain.heads]
            tails = tuple(settled[id(task)] for task in run.chain.tails)
        if not settled:
            raise InvalidWorkflow(f"workflow {name!r} runs no task; end it with (a >> b).run()", source)
        edges += [_settled_edge(up, down, settled, source) for up, down in stated]
        edges = list(dict.fromkeys(edges))  # what a chain has tied was stated as well
        return cls(name, settled.values(), edges, doc=doc, source=source, is_subset=is_part)

    def with_defaults(self, settings: ExecutionSettings) -> Workflow:
        """Return this workflow, the settings of its tasks completed by ``settings``.

        :raises InvalidWorkflow: when paths turn out to be one that were written in two ways.
        """
        if all(task.settings.with_fallback(settings) == task.settings for task in self.given):
            return self
        return self.with_tasks(lambda task: task.with_defaults(settings))

    def with_tasks(self, change: Callable[[Task], Task]) -> Workflow:
        """Return this workflow, its tasks said anew.

        :param change: returns the task in its new form; it keeps its name and what it runs.
        :raises InvalidWorkflow: when paths turn out to be one that were written in two ways.
        """
        return Workflow(
            self.name,
            [change(task) for task in self.given],
            self.explicit_edges,
            doc=self.doc,
            source=self.source,
            is_subset=self.is_subset,
            excluded=self.excluded,
        )

    def name_of(self, task: Task | str) -> str | None:
        """Return the name that a task has here, also of one that says the same as another, or ``None``."""
        return self._members.name_of(task)

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return the names of the tasks that a name means here: one, or all that came of a mapped one; none if none."""
        return self._members.names_of(name)

    def subset(self, names: Collection[str]) -> Workflow:
        """Return some of the tasks, in the order that they have in the whole.

        What one needs from a task that is left out has to be there already.
        """
        tasks = [task for task in self.given if self.name_of(task) in names]
        nearest = self._nearest(names)
        edges = [
            (self.tasks[up], task)
            for name, task in self.tasks.items()
            if name in names
            for up in nearest[name]
            if EXPLICIT in self.edge_reasons.reasons[name].get(up, (EXPLICIT,))  # paths are found again
        ]
        elsewhere = ExcludedTasks(
            {
                product: [*self.excluded.consumers.get(product, ()), *(user for user in users if user not in names)]
                for product, users in self.edge_reasons.consumers.items()
            },
            {
                (name, path): up
                for name in names
                for up, paths in self.edge_reasons.reasons[name].items()
                for path in paths
                if up not in names
            },
        )
        return Workflow(self.name, tasks, edges, doc=self.doc, source=self.source, is_subset=True, excluded=elsewhere)

    def _nearest(self, names: Collection[str]) -> dict[str, dict[str, None]]:
        """Return for each task those before it that are among these, by way of any that are not."""
        nearest: dict[str, dict[str, None]] = {}
        for name in self.order:
            found: dict[str, None] = {}
            for up in self.upstream[name]:
                found.update({up: None} if up in names else nearest[up])
            nearest[name] = found
        return nearest

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


def _ordered(workflow: Workflow) -> tuple[str, ...]:
    try:
        return tuple(TopologicalSorter(workflow.upstream).static_order())
    except CycleError as error:
        up, down, *_ = cycle = error.args[1]
        reasons = workflow.edge_reasons.reasons[down][up]
        at = (down, "depends_on", up) if EXPLICIT in reasons else (down, "dependencies", next(iter(reasons)))
        raise InvalidWorkflow(_drawn(workflow, cycle), workflow.source, at=at) from None


def _drawn(workflow: Workflow, cycle: list[str]) -> str:
    first, *rest = cycle[:-1]
    if not rest:
        return f"task {first!r} waits for itself ({workflow.tasks[first].source}); take that edge out"
    steps = [
        f"  {up}   ({workflow.tasks[up].source})\n    ↓{_paths(workflow, up, down)}"
        for up, down in zip(cycle, cycle[1:])
    ]
    if len(steps) > _LONGEST_DRAWING:
        half = _LONGEST_DRAWING // 2
        steps[half:-half] = [f"  … {len(steps) - 2 * half:,} more tasks …\n    ↓"]
    steps.append(f"  {first}   (again)")
    return "these tasks wait for each other in a circle:\n" + "\n".join(steps) + "\nTake one of these edges out."


def _paths(workflow: Workflow, up: str, down: str) -> str:
    """Return for which paths a task runs after another, if that is why."""
    reasons = workflow.edge_reasons.reasons[down][up]
    return "" if EXPLICIT in reasons else f"  {', '.join(reasons)}"


def _refuse_second_run(task: Task, run: Run, first_run: dict[int, Run]) -> None:
    earlier = first_run.setdefault(id(task), run)
    if earlier is not run:
        raise InvalidWorkflow(
            f"task {task.name!r} is run a second time, after {earlier.source}; a workflow runs each task once. "
            f"For two branches write {task.name} >> [b, c]; to run it again, make a second Task.",
            run.source,
        )
