"""Edges between tasks and their reasons: explicit ones, paths, and results."""

from __future__ import annotations

import os
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.paths import FAILED, External, path_key, sibling_path
from airflow_provider_sewer.core.size_limits import MAX_EDGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_sewer.core.paths import Dependency, Product
    from airflow_provider_sewer.core.task import Task

#: Reason of an explicit edge; otherwise the path is the reason.
EXPLICIT = ""

#: Shared by most edges.
_ONLY_EXPLICIT = (EXPLICIT,)


class TaskIndex:
    """Index of the distinct tasks of a workflow; of equal tasks, it contains the first.

    :param tasks: tasks, in the order of the file.
    :raises InvalidWorkflow: when two different tasks have the same name.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks: dict[str, Task] = {}
        self.all: list[tuple[str, Task]] = []  # with duplicates, by the name of the first
        self._names: dict[str, str] = {}
        self._mapped: dict[str, dict[str, None]] = {}
        self.names: dict[object, str] = {}  # by the identities of tasks
        producers: dict[tuple[str, ...], str] = {}
        for task in tasks:
            name = self._name_of_equal(task, producers)
            self.tasks.setdefault(name, task)
            self.all.append((name, task))
            self._names[task.name] = name
            if task.mapped_task is not None:
                self._mapped.setdefault(task.mapped_task.name, {})[name] = None
            self.names[task.identity] = name

    def name_of(self, task: Task | str) -> str | None:
        """Return the name of a task in the workflow, also of a duplicate, or ``None`` if it is not part of it."""
        return self._names.get(task) if isinstance(task, str) else self.names.get(task.identity)

    def names_of(self, task: Task | str) -> tuple[str, ...]:
        """Return the names of the tasks of a name: the task itself, or all tasks of a mapped one."""
        name = self.name_of(task)
        if name is None and isinstance(task, str):
            return tuple(self._mapped.get(task, ()))
        return () if name is None else (name,)

    def _name_of_equal(self, task: Task, producers: dict[tuple[str, ...], str]) -> str:
        namesake = self.tasks.get(self._names.get(task.name, task.name))
        if namesake is not None and namesake is not task and not namesake.is_same(task):
            raise InvalidWorkflow(
                f"two tasks are named {task.name!r}; the other one is at {namesake.source}; rename one", task.source
            )
        if namesake is not None:
            return namesake.name
        paths = tuple(product_keys(task))
        other = self.tasks.get(producers.setdefault(paths, task.name)) if paths else None
        return other.name if other is not None and other.is_same(task) else task.name


class Graph(NamedTuple):
    """Edges of a workflow.

    :param reasons: for each task, its upstream tasks, each with all reasons: :data:`EXPLICIT`, or paths.
    :param external_inputs: dependencies without a producer: the dependent task, and the dependency.
    :param consumers: for each product, as (its task's name, its path), the names of the tasks that depend on it.
    """

    reasons: dict[str, dict[str, tuple[str, ...]]]
    external_inputs: list[tuple[Task, Dependency]]
    consumers: dict[tuple[str, str], list[str]]


def build_graph(members: TaskIndex, stated: Iterable[tuple[Task, Task]], *, is_part: bool) -> Graph:
    """Return the graph of explicit edges, ``depends_on``, results, and paths.

    :param is_part: whether to ignore dependencies on tasks outside of the workflow.
    :raises InvalidWorkflow: when a task depends on one outside of the workflow, or two tasks produce the same path.
    """
    graph = Graph({name: {} for name in members.tasks}, [], {})
    count = 0

    def add(up: str, task: Task, path: str) -> None:
        nonlocal count
        count += 1
        if count > MAX_EDGES:
            message = f"a workflow must have at most {MAX_EDGES:,} edges; put a task between many and many others"
            raise InvalidWorkflow(f"task {task.name!r}: {message}", task.source)
        reasons = graph.reasons[members.names[task.identity]]
        if path == EXPLICIT:
            reasons[up] = _ONLY_EXPLICIT
        elif path not in (known := reasons.get(up, ())):
            reasons[up] = (*known, path)

    names = members.names
    for up, down in stated:
        before, after = names[up.identity], names[down.identity]
        if before != after or up.identity is down.identity:  # otherwise two duplicates of one task
            graph.reasons[after][before] = _ONLY_EXPLICIT
    for _, task in members.all:
        for other in _explicit_by(task, members, is_part=is_part):
            add(other, task, EXPLICIT)
    index = _ProductIndex(members.tasks)
    for task in members.tasks.values():
        for dependency in task.dependencies:
            produced = list(index.of(task, dependency))
            for producer, product in produced:
                add(producer, task, dependency.path)
                graph.consumers.setdefault((producer, product.path), []).append(task.name)
            if not produced:
                graph.external_inputs.append((task, dependency))
    for producer, product, task, dependency in _possible_producers(members.tasks, graph):
        add(producer, task, dependency.path)
        graph.consumers.setdefault((producer, product.path), []).append(task.name)
        if (task, dependency) in graph.external_inputs:
            graph.external_inputs.remove((task, dependency))
    return graph


def _possible_producers(tasks: Mapping[str, Task], graph: Graph) -> list[tuple[str, Product, Task, Dependency]]:
    """Return dependencies that a task mapped over a result could produce, as its paths are known only at run time.

    Upstream tasks of such a task are left out, whatever their paths.
    """
    perhaps = []
    for name, producer in tasks.items():
        if producer.mapped_task is None or producer.mapped_task.is_known_beforehand:
            continue
        named = [product for product in producer.products if producer.mapped_task.names_value(product.path)]
        before = _all_upstream(name, graph) if named else set()
        for product in named:
            key = path_key(product.path, producer.settings.workdir)
            own, *outer = [producer.mapped_task.pattern(path) for path in (key, *_parents(key))]
            for task, dependency in graph.external_inputs:
                if task.name == name or task.name in before or isinstance(dependency, External):
                    continue
                other = path_key(dependency.path, task.settings.workdir)
                if any(map(own.fullmatch, (other, *_parents(other)))) or any(each.fullmatch(other) for each in outer):
                    perhaps.append((name, product, task, dependency))
    return perhaps


def _all_upstream(name: str, graph: Graph) -> set[str]:
    upstream: set[str] = set()
    pending = [name]
    while pending:
        ups = [up for up in graph.reasons[pending.pop()] if up not in upstream]
        upstream.update(ups)
        pending += ups
    return upstream


def product_keys(task: Task) -> Iterator[str]:
    """Return the keys of the paths of a task's products."""
    for product in task.products:
        yield path_key(product.path, task.settings.workdir)


class _ProductIndex:
    """Index of producers by path."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._producers: dict[str, tuple[Task, Product]] = {}
        for task in tasks.values():
            for key, product in zip(product_keys(task), task.products):
                self._add(key, task, product)
        self._keys = sorted(self._producers)
        for key, (task, product) in self._producers.items():
            if (failed := sibling_path(key, FAILED)) in self._producers:
                self._reject_name_of_failed(task, product, *self._producers[failed])
            for above in _parents(key):
                if above in self._producers:
                    self._reject_inner(task, product, *self._producers[above])

    def of(self, task: Task, dependency: Dependency) -> Iterator[tuple[str, Product]]:
        """Return the producers of a dependency: of the path, of a directory around it, or of paths in it."""
        key = path_key(dependency.path, task.settings.workdir)
        paths = [path for path in (key, *_parents(key)) if path in self._producers]
        at = bisect_left(self._keys, key + os.sep)
        while at < len(self._keys) and self._keys[at].startswith(key + os.sep):
            paths.append(self._keys[at])
            at += 1
        for path in paths:
            producer, product = self._producers[path]
            if producer.name == task.name:
                raise InvalidWorkflow(
                    f"task {task.name!r} has {dependency.path!r} as a product and as a dependency; a file that it "
                    "changes in place can be neither",
                    task.source,
                    at=(task.name, "dependencies", dependency.path),
                )
            if isinstance(dependency, External):
                raise InvalidWorkflow(
                    f"task {task.name!r}: {dependency!r} is produced by task {producer.name!r} ({producer.source}); "
                    f"write Dependency({dependency.path!r})",
                    task.source,
                    at=(task.name, "dependencies", dependency.path),
                )
            yield producer.name, product

    def _add(self, key: str, task: Task, product: Product) -> None:
        other, _ = self._producers.setdefault(key, (task, product))
        if other is not task:
            raise _wrong_product(
                task,
                product,
                f"two tasks produce {product.path!r}: {other.name!r} ({other.source}) and {task.name!r}; "
                "give one of them another path",
            )
        if self._producers[key][1] != product:
            message = f"task {task.name!r} declares product {product.path!r} twice with different options"
            raise _wrong_product(task, product, message)

    def _reject_name_of_failed(self, task: Task, product: Product, other: Task, failed: Product) -> None:
        raise _wrong_product(
            task,
            product,
            f"task {other.name!r} ({other.source}) produces {failed.path!r}, the name of product {product.path!r} of "
            f"task {task.name!r} after a failure; give one of them another path",
        )

    def _reject_inner(self, task: Task, product: Product, other: Task, outer: Product) -> None:
        raise _wrong_product(
            task,
            product,
            f"product {product.path!r} of task {task.name!r} is inside {outer.path!r}, a product of task "
            f"{other.name!r} ({other.source}); move it elsewhere",
        )


def _wrong_product(task: Task, product: Product, message: str) -> InvalidWorkflow:
    """Return an error that points at a product of a task."""
    return InvalidWorkflow(message, task.source, at=(task.name, "products", product.path))


def _parents(key: str) -> Iterator[str]:
    while (above := os.path.dirname(key)) and above != key:
        yield above
        key = above


def _explicit_by(task: Task, members: TaskIndex, *, is_part: bool) -> Iterator[str]:
    """Return the upstream tasks that a task names itself: in ``depends_on``, and by their results."""
    for dependency in task.depends_on:
        reason = _missing_reason(dependency, members)
        if reason and not is_part:
            raise InvalidWorkflow(
                f"task {task.name!r} depends on a task that is not part of the workflow: {reason}", task.source
            )
        if not reason:
            yield from members.names_of(dependency)
    for result in task.results:
        producer = members.name_of(result.task)
        if producer is not None:
            yield producer
        elif not is_part:
            raise InvalidWorkflow(
                f"task {task.name!r} takes {result!r}, but the task at {result.task.source} is not part of the "
                "workflow; add it to .run()",
                task.source,
            )


def _missing_reason(dependency: Task | str, members: TaskIndex) -> str | None:
    """Return why a dependency on a task is not valid, or ``None`` if it is."""
    if members.names_of(dependency):
        return None
    name = dependency if isinstance(dependency, str) else dependency.name
    if isinstance(dependency, str) or name not in members.tasks:
        return unknown_name("task", name, members.tasks)
    return f"{name!r} at {dependency.source}; it has another task of that name"
