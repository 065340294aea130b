"""Which task runs before which, and why: because it was stated, for a path, or for a result."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.paths import FAILED, External, path_key, sibling_path
from airflow_provider_sewer.core.size_limits import MAX_EDGES

if TYPE_CHECKING:
    from airflow_provider_sewer.core.paths import Dependency, Product
    from airflow_provider_sewer.core.task import Task

#: Why a task runs after another where that was said in so many words; else the path is the reason.
EXPLICIT = ""

#: The reason for most edges, shared by them.
_ONLY_EXPLICIT = (EXPLICIT,)


class TaskIndex:
    """The tasks of a workflow, each once: those that say the same are one task, the first of them.

    :param tasks: tasks, in the order they were named.
    :raises InvalidWorkflow: when two that differ have one name.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks: dict[str, Task] = {}
        self.all: list[tuple[str, Task]] = []  # also those that are one with another, by the name of that
        self._names: dict[str, str] = {}
        self._mapped: dict[str, dict[str, None]] = {}
        self.names: dict[object, str] = {}  # by the identities of tasks
        makers: dict[tuple[str, ...], str] = {}
        for task in tasks:
            name = self._name_of_equal(task, makers)
            self.tasks.setdefault(name, task)
            self.all.append((name, task))
            self._names[task.name] = name
            if task.mapped_task is not None:
                self._mapped.setdefault(task.mapped_task.name, {})[name] = None
            self.names[task.identity] = name

    def name_of(self, task: Task | str) -> str | None:
        """Return the name of the task that this one is here, or ``None`` if it is none of them."""
        return self._names.get(task) if isinstance(task, str) else self.names.get(task.identity)

    def names_of(self, task: Task | str) -> tuple[str, ...]:
        """Return the names of the tasks that are meant: all that came of a mapped one by the name of that."""
        name = self.name_of(task)
        if name is None and isinstance(task, str):
            return tuple(self._mapped.get(task, ()))
        return () if name is None else (name,)

    def _name_of_equal(self, task: Task, makers: dict[tuple[str, ...], str]) -> str:
        namesake = self.tasks.get(self._names.get(task.name, task.name))
        if namesake is not None and namesake is not task and not namesake.is_same(task):
            raise InvalidWorkflow(
                f"two tasks are named {task.name!r}; the other one is at {namesake.source}; rename one", task.source
            )
        if namesake is not None:
            return namesake.name
        paths = tuple(product_keys(task))
        other = self.tasks.get(makers.setdefault(paths, task.name)) if paths else None
        return other.name if other is not None and other.is_same(task) else task.name


class Graph(NamedTuple):
    """Who runs after whom.

    :param reasons: for each task, the tasks that run before it, each with all that is the reason for it:
        :data:`STATED`, or paths.
    :param unmade: dependencies that no task makes: the task that has it, and the dependency.
    :param users: for each product, as (its task's name, its path), the names of the tasks that depend on it.
    """

    reasons: dict[str, dict[str, tuple[str, ...]]]
    external_inputs: list[tuple[Task, Dependency]]
    consumers: dict[tuple[str, str], list[str]]


def build_graph(members: TaskIndex, stated: Iterable[tuple[Task, Task]], *, is_part: bool) -> Graph:
    """Bring together what was stated, ``depends_on``, results, and paths.

    :param is_part: leave aside what depends on tasks that are not there.
    :raises InvalidWorkflow: when a task depends on one that is not there, or two make one path.
    """
    found = Graph({name: {} for name in members.tasks}, [], {})
    count = 0

    def note(up: str, task: Task, path: str) -> None:
        nonlocal count
        count += 1
        if count > MAX_EDGES:
            said = f"a workflow must have at most {MAX_EDGES:,} edges; put a task between many and many others"
            raise InvalidWorkflow(f"task {task.name!r}: {said}", task.source)
        reasons = found.reasons[members.names[task.identity]]
        if path == EXPLICIT:
            reasons[up] = _ONLY_EXPLICIT
        elif path not in (known := reasons.get(up, ())):
            reasons[up] = (*known, path)

    names = members.names
    for up, down in stated:
        before, after = names[up.identity], names[down.identity]
        if before != after or up.identity is down.identity:  # else two that are one task
            found.reasons[after][before] = _ONLY_EXPLICIT
    for _, task in members.all:
        for other in _explicit_by(task, members, is_part=is_part):
            note(other, task, EXPLICIT)
    makers = _ProductIndex(members.tasks)
    for task in members.tasks.values():
        for dependency in task.dependencies:
            made = list(makers.of(task, dependency))
            for maker, product in made:
                note(maker, task, dependency.path)
                found.consumers.setdefault((maker, product.path), []).append(task.name)
            if not made:
                found.external_inputs.append((task, dependency))
    for maker, product, task, dependency in _possible_producers(members.tasks, found):
        note(maker, task, dependency.path)
        found.consumers.setdefault((maker, product.path), []).append(task.name)
        if (task, dependency) in found.external_inputs:
            found.external_inputs.remove((task, dependency))
    return found


def _possible_producers(tasks: Mapping[str, Task], found: Graph) -> list[tuple[str, Product, Task, Dependency]]:
    """Return dependencies that could be made by a task mapped over a result, whose paths only a run brings to light.

    What such a task follows does not depend on it, whatever the paths.
    """
    perhaps = []
    for name, maker in tasks.items():
        if maker.mapped_task is None or maker.mapped_task.is_known_beforehand:
            continue
        named = [product for product in maker.products if maker.mapped_task.names_value(product.path)]
        before = _all_before(name, found) if named else set()
        for product in named:
            key = path_key(product.path, maker.settings.workdir)
            whole, *outer = [maker.mapped_task.pattern(place) for place in (key, *_parents(key))]
            for task, dependency in found.external_inputs:
                if task.name == name or task.name in before or isinstance(dependency, External):
                    continue
                other = path_key(dependency.path, task.settings.workdir)
                if any(map(whole.fullmatch, (other, *_parents(other)))) or any(each.fullmatch(other) for each in outer):
                    perhaps.append((name, product, task, dependency))
    return perhaps


def _all_before(name: str, found: Graph) -> set[str]:
    before: set[str] = set()
    left = [name]
    while left:
        ups = [up for up in found.reasons[left.pop()] if up not in before]
        before.update(ups)
        left += ups
    return before


def product_keys(task: Task) -> Iterator[str]:
    """Return what the products of a task are known by in its workflow."""
    for product in task.products:
        yield path_key(product.path, task.settings.workdir)


class _ProductIndex:
    """Which task makes which path."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._makers: dict[str, tuple[Task, Product]] = {}
        for task in tasks.values():
            for key, product in zip(product_keys(task), task.products):
                self._add(key, task, product)
        self._keys = sorted(self._makers)
        for key, (task, product) in self._makers.items():
            if (failed := sibling_path(key, FAILED)) in self._makers:
                self._refuse_name_of_failed(task, product, *self._makers[failed])
            for above in _parents(key):
                if above in self._makers:
                    self._refuse_inner(task, product, *self._makers[above])

    def of(self, task: Task, dependency: Dependency) -> Iterator[tuple[str, Product]]:
        """Return those that make a dependency: the path itself, a directory it is in, or what is in it."""
        key = path_key(dependency.path, task.settings.workdir)
        places = [place for place in (key, *_parents(key)) if place in self._makers]
        at = bisect_left(self._keys, key + os.sep)
        while at < len(self._keys) and self._keys[at].startswith(key + os.sep):
            places.append(self._keys[at])
            at += 1
        for place in places:
            maker, product = self._makers[place]
            if maker.name == task.name:
                raise InvalidWorkflow(
                    f"task {task.name!r} has {dependency.path!r} as a product and as a dependency; what it changes in "
                    "place can be neither",
                    task.source,
                    at=(task.name, "dependencies", dependency.path),
                )
            if isinstance(dependency, External):
                raise InvalidWorkflow(
                    f"task {task.name!r}: {dependency!r} is made by task {maker.name!r} ({maker.source}); "
                    f"write Dependency({dependency.path!r})",
                    task.source,
                    at=(task.name, "dependencies", dependency.path),
                )
            yield maker.name, product

    def _add(self, key: str, task: Task, product: Product) -> None:
        other, _ = self._makers.setdefault(key, (task, product))
        if other is not task:
            raise _wrong_product(
                task,
                product,
                f"two tasks make {product.path!r}: {other.name!r} ({other.source}) and {task.name!r}; "
                "give one of them another path",
            )
        if self._makers[key][1] != product:
            raise _wrong_product(task, product, f"task {task.name!r} says two things of its product {product.path!r}")

    def _refuse_name_of_failed(self, task: Task, product: Product, other: Task, failed: Product) -> None:
        raise _wrong_product(
            task,
            product,
            f"task {other.name!r} makes {failed.path!r} ({other.source}), and so would be called what task "
            f"{task.name!r} leaves of its product {product.path!r} when it fails; give one of them another path",
        )

    def _refuse_inner(self, task: Task, product: Product, other: Task, outer: Product) -> None:
        raise _wrong_product(
            task,
            product,
            f"the product {product.path!r} of task {task.name!r} lies in {outer.path!r}, which as a whole is a product "
            f"of task {other.name!r} ({other.source}); put it elsewhere",
        )


def _wrong_product(task: Task, product: Product, said: str) -> InvalidWorkflow:
    """Return the error that points at a product of a task."""
    return InvalidWorkflow(said, task.source, at=(task.name, "products", product.path))


def _parents(key: str) -> Iterator[str]:
    while (above := os.path.dirname(key)) and above != key:
        yield above
        key = above


def _explicit_by(task: Task, members: TaskIndex, *, is_part: bool) -> Iterator[str]:
    """Return the tasks that a task names itself: in ``depends_on``, and by their results."""
    for dependency in task.depends_on:
        why = _why_not_run(dependency, members)
        if why and not is_part:
            raise InvalidWorkflow(
                f"task {task.name!r} depends on a task that this workflow does not run: {why}", task.source
            )
        if not why:
            yield from members.names_of(dependency)
    for result in task.results:
        maker = members.name_of(result.task)
        if maker is not None:
            yield maker
        elif not is_part:
            raise InvalidWorkflow(
                f"task {task.name!r} takes {result!r}, and this workflow does not run the task at "
                f"{result.task.source}; name it in the .run()",
                task.source,
            )


def _why_not_run(dependency: Task | str, members: TaskIndex) -> str | None:
    """Return what is wrong with a dependency on a task that is not among these, else ``None``."""
    if members.names_of(dependency):
        return None
    name = dependency if isinstance(dependency, str) else dependency.name
    if isinstance(dependency, str) or name not in members.tasks:
        return unknown_name("task", name, members.tasks)
    return f"{name!r} at {dependency.source}; it runs another task of that name"
