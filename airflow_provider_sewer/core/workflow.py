"""Workflow: named tasks and the edges between them."""

from __future__ import annotations

import functools
import inspect
from graphlib import CycleError, TopologicalSorter
from types import FunctionType
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.graph import EXPLICIT, Graph, TaskIndex, build_graph
from airflow_provider_sewer.core.recording import CalledWorkflow, Run, record_workflow
from airflow_provider_sewer.core.source import calling_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.source import SourceLine
    from airflow_provider_sewer.core.task import Task

_NOT_PLAIN = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

#: Name of a workflow without a name, and of the default one among several.
DEFAULT_WORKFLOW = "workflow"

#: Maximum number of tasks in the drawing of a cycle.
_LONGEST_DRAWING = 10

_Function = TypeVar("_Function", bound=Callable[..., Any])


def workflow(function: _Function = None) -> _Function:  # type: ignore[assignment]
    """Declare a function to be a workflow, under its own name.

    A call runs the function. To get its graph, the function is recorded instead: every ``.run()`` in it adds to the
    graph and starts no process, and consecutive ``.run()`` calls follow each other. Other workflows that it calls are
    recorded too; the tasks of each are a group of its name.

    :raises InvalidWorkflow: for anything but a plain function.
    """
    if not isinstance(function, FunctionType):
        found = "" if function is None else f"; got {function!r:.200}"
        raise InvalidWorkflow(f"@workflow must decorate a function and takes no arguments{found}", calling_line())
    if function.__code__.co_flags & _NOT_PLAIN:
        raise InvalidWorkflow(
            f"workflow {function.__name__!r} is async or a generator; write a plain function with def", calling_line()
        )

    @functools.wraps(function)
    def declared(*args: Any, **kwargs: Any) -> Any:
        with CalledWorkflow(function, args, kwargs):
            return function(*args, **kwargs)

    declared.__sewer_workflow__ = calling_line()  # type: ignore[attr-defined]
    record_workflow(function.__name__, declared)
    return declared  # type: ignore[return-value]


class ExcludedTasks(NamedTuple):
    """Relations between a subset of a workflow and the excluded tasks.

    :param consumers: names of the excluded tasks that depend on a product, by (its task's name, its path).
    :param producers: the excluded task that produces a dependency, by (name of the dependent task, path).
    """

    consumers: Mapping[tuple[str, str], list[str]]
    producers: Mapping[tuple[str, str], str]


class Workflow:
    """Tasks by name, and for each the names of its upstream tasks.

    Equal tasks are one: those of one name, and those that produce the same paths. The attribute ``unused`` has the
    tasks that its file defines and that no workflow of the file runs, as far as this is known.

    :param name: its name.
    :param tasks: its tasks, in the order of the file.
    :param edges: pairs of (task, downstream task), in addition to ``depends_on``.
    :param doc: its description.
    :param source: the line of its declaration.
    :param is_subset: whether it is a subset of a larger workflow; dependencies on other tasks are then ignored.
    :param excluded: relations to the tasks of the larger workflow.
    :raises InvalidWorkflow: when two different tasks have the same name or product, a dependency is unknown, or there
        is a cyclic dependency.
    """

    unused: tuple[Task, ...] = ()

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
        self.given = list(tasks)  # with duplicates of a task, for the tasks that depend on them
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
        """Return by name the mapped tasks all of whose tasks are here and not merged with others.

        Their tasks are those of the file; settings of the workflow are in the tasks of the same name here.
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
        """Return the workflow of recorded runs, each following the previous one.

        :param stated: explicit edges outside of the runs.
        :raises InvalidWorkflow: also when a task is run twice or there is no task, or an edge has a task that does not
            belong to the workflow.
        """
        final: dict[int, Task] = {}
        edges: list[tuple[Task, Task]] = []
        first_run: dict[int, Run] = {}
        tails: tuple[Task, ...] = ()
        runs = list(runs)
        secrets = {value: name for run in runs for value, name in run.secrets.items()}
        for run in runs:
            for task in run.chain.tasks():
                _reject_second_run(task, run, first_run)
                final[id(task)] = task.with_defaults(run.settings).in_group(run.group).with_secrets(secrets)
            edges += [(final[id(up)], final[id(down)]) for up, down in run.chain.edges()]
            edges += [(up, final[id(down)]) for up in tails for down in run.chain.heads]
            tails = tuple(final[id(task)] for task in run.chain.tails)
        if not final:
            raise InvalidWorkflow(f"workflow {name!r} runs no task; end it with (a >> b).run()", source)
        edges += [_final_edge(up, down, final, source) for up, down in stated]
        edges = list(dict.fromkeys(edges))  # the edges of a chain are also among the explicit ones
        return cls(name, final.values(), edges, doc=doc, source=source, is_subset=is_part)

    def with_defaults(self, settings: ExecutionSettings) -> Workflow:
        """Return this workflow, with the settings of its tasks completed by ``settings``.

        :raises InvalidWorkflow: when two spellings of a path turn out to be the same path.
        """
        if all(task.settings.with_fallback(settings) == task.settings for task in self.given):
            return self
        return self.with_tasks(lambda task: task.with_defaults(settings))

    def with_workdir(self, workdir: str | None) -> Workflow:
        """Return this workflow with the edges of its paths as they are in a default working directory.

        The settings of its tasks may lack it if no task has a path.

        :raises InvalidWorkflow: when two spellings of a path turn out to be the same path.
        """
        if workdir is None or not any(task.products or task.dependencies for task in self.given):
            return self
        return self.with_defaults(ExecutionSettings(workdir=workdir))

    def with_tasks(self, change: Callable[[Task], Task]) -> Workflow:
        """Return this workflow with changed tasks.

        :param change: returns the changed task, with the same name and target.
        :raises InvalidWorkflow: when two spellings of a path turn out to be the same path.
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
        """Return the name of a task in this workflow, also of a duplicate, or ``None``."""
        return self._members.name_of(task)

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return the names of the tasks of a name: the task itself, or all tasks of a mapped one; empty if unknown."""
        return self._members.names_of(name)

    def subset(self, names: Collection[str]) -> Workflow:
        """Return the workflow of some of the tasks, in their order.

        Products of excluded tasks that they need must exist.
        """
        tasks = [task for task in self.given if self.name_of(task) in names]
        ancestors = self._nearest(names)
        edges = [
            (self.tasks[up], task)
            for name, task in self.tasks.items()
            if name in names
            for up in ancestors[name]
            if EXPLICIT in self.edge_reasons.reasons[name].get(up, (EXPLICIT,))  # edges of paths are found again
        ]
        excluded = ExcludedTasks(
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
        return Workflow(self.name, tasks, edges, doc=self.doc, source=self.source, is_subset=True, excluded=excluded)

    def _nearest(self, names: Collection[str]) -> dict[str, dict[str, None]]:
        """Return for each task its nearest upstream tasks among these, also through other tasks."""
        nearest: dict[str, dict[str, None]] = {}
        for name in self.order:
            found: dict[str, None] = {}
            for up in self.upstream[name]:
                found.update({up: None} if up in names else nearest[up])
            nearest[name] = found
        return nearest

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Return pairs of names (task, downstream task), in the order of the tasks."""
        return [(up, down) for down in self.tasks for up in self.upstream[down]]

    def __repr__(self) -> str:
        return f"Workflow({self.name!r}, tasks={list(self.tasks)})"


def _final_edge(up: Task, down: Task, final: Mapping[int, Task], source: SourceLine | None) -> tuple[Task, Task]:
    for task in (up, down):
        if id(task) not in final:
            raise InvalidWorkflow(
                f"{up.name!r} >> {down.name!r} is defined, but {task.name!r} is not part of the workflow; add it to "
                ".run() or remove the edge",
                source,
            )
    return final[id(up)], final[id(down)]


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
        return f"task {first!r} depends on itself ({workflow.tasks[first].source}); remove that edge"
    steps = [
        f"  {up}   ({workflow.tasks[up].source})\n    ↓{_paths(workflow, up, down)}"
        for up, down in zip(cycle, cycle[1:])
    ]
    if len(steps) > _LONGEST_DRAWING:
        half = _LONGEST_DRAWING // 2
        steps[half:-half] = [f"  … {len(steps) - 2 * half:,} more tasks …\n    ↓"]
    steps.append(f"  {first}   (again)")
    return "Cyclic dependency:\n" + "\n".join(steps) + "\nRemove one of these edges."


def _paths(workflow: Workflow, up: str, down: str) -> str:
    """Return the paths that an edge comes from, if it is not explicit."""
    reasons = workflow.edge_reasons.reasons[down][up]
    return "" if EXPLICIT in reasons else f"  {', '.join(reasons)}"


def _reject_second_run(task: Task, run: Run, first_run: dict[int, Run]) -> None:
    earlier = first_run.setdefault(id(task), run)
    if earlier is not run:
        raise InvalidWorkflow(
            f"task {task.name!r} is run a second time, after {earlier.source}; a workflow runs each task once. "
            f"For two branches write {task.name} >> [b, c]; to run it again, create a second Task.",
            run.source,
        )
