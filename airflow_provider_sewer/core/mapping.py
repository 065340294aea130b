"""Mapped tasks: ``task.map(n=[10, 20, 30])`` makes one task for each value."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.chain import Chain
from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.placeholders import Ignored, Result
from airflow_provider_sewer.core.recording import automatic_name, secrets_of_workflow
from airflow_provider_sewer.core.secret_detection import is_secret
from airflow_provider_sewer.core.size_limits import MAX_ITEMS, bounded_list, joined_pattern
from airflow_provider_sewer.core.source import calling_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_sewer.core.paths import PathMarker
    from airflow_provider_sewer.core.source import SourceLine
    from airflow_provider_sewer.core.task import Task

#: Maximum length of a value as part of a name.
_LONGEST_LABEL = 40

#: Name of the instance of a mapped task in templates.
_INSTANCE = "map_index"


class MappedTask(Chain):
    """Tasks that differ by some values only; in Airflow, they can be one mapped task.

    It can be used like a list of its tasks: in ``>>``, in ``depends_on``, in a ``for``.

    :param name: base of the names of its tasks; unique in a workflow.
    :param template: the task without those values; it runs only if it is named itself.
    :param values: for each parameter the list of its values, or the result that provides them.
    :param each_with_each: whether to combine each value with each, instead of the lists in parallel.
    :param tasks: the tasks in their order; if there is a result among the values, a single one that holds it.
    :param source: the line of the call.
    """

    __slots__ = ("each_with_each", "name", "source", "template", "values")

    def __init__(
        self,
        name: str,
        template: Task,
        values: Mapping[str, list[Any] | Result],
        *,
        each_with_each: bool,
        tasks: Iterable[Task],
        source: SourceLine,
    ) -> None:
        several = tuple(tasks)
        super().__init__(several, several, several)
        self.name = name
        self.template = template
        self.values = values
        self.each_with_each = each_with_each
        self.source = source

    @property
    def is_known_beforehand(self) -> bool:
        """Return whether its values are known before anything runs."""
        return not any(isinstance(each, Result) for each in self.values.values())

    @property
    def result(self) -> list[Result] | Result:
        """Return the placeholders of its tasks' results, in their order, for the parameters of later tasks."""
        return [task.result for task in self] if self.is_known_beforehand else self[0].result

    @property
    def distinct(self) -> tuple[Task, ...]:
        """Return its tasks without duplicates: equal values make one task."""
        return tuple({task.name: task for task in self}.values())

    def task_of(self, row: Mapping[str, Any]) -> Task:
        """Return the task for these values, which are known only at run time."""
        return self.template.with_values(self.name, row, _Formatter(row))

    def marker_of(self, marker: PathMarker, row: Mapping[str, Any]) -> PathMarker:
        """Return a path of its template for these values."""
        return _Formatter(row)(marker)

    def names_value(self, path: str) -> bool:
        """Return whether a path contains a value, and so differs for each value."""
        return bool(_named(self.values).search(path))

    def pattern(self, path: str) -> re.Pattern[str]:
        """Return a pattern of the paths that this one can become, for any values."""
        return joined_pattern(list(map(re.escape, _named(self.values).split(path)[::2])), ".+")

    def check_values(self, values: Any) -> None:
        """Check values that are known only at run time.

        :raises InvalidTask: when they are not a list, or different tasks would produce the same path.
        """
        if not isinstance(values, list):
            found = "an object" if isinstance(values, Mapping) else f"{values!r:.80}"
            raise InvalidTask(f"task {self.name!r} must be mapped over a list, got the result {found}", self.source)
        if len(values) > MAX_ITEMS:
            message = (
                f"task {self.name!r} must be mapped over at most {MAX_ITEMS:,} values, got a result of {len(values):,}"
            )
            raise InvalidTask(message, self.source)
        (key,) = self.values
        rows = [{key: value} for value in values]
        try:
            _reject_shared_product(self.template, [self.task_of(row) for row in rows], rows)
        except InvalidTask as error:
            raise InvalidTask(f"task {self.name!r}: map: {error}", self.source) from None

    def __len__(self) -> int:
        """Return the number of its tasks."""
        return len(self.heads)

    def __iter__(self) -> Iterator[Task]:
        """Iterate over its tasks."""
        return iter(self.heads)

    def __getitem__(self, index: int) -> Task:
        """Return one of its tasks."""
        return self.heads[index]

    def __repr__(self) -> str:
        return f"MappedTask({self.name!r}, {len(self)} tasks)"


def checked_values(values: Mapping[str, Any], name: str) -> dict[str, list[Any] | Result]:
    """Return the values to map a task over, as lists.

    :param name: the task's name, for the message.
    :raises InvalidTask: when there are none, or a value is not a list.
    """
    checked: dict[str, list[Any] | Result] = {}
    for key, each in values.items():
        if isinstance(each, Result):
            checked[key] = each
            continue
        if isinstance(each, (str, bytes, Mapping, AbstractSet)) or not isinstance(each, Iterable):
            message = f"task {name!r}: map: {key} must be a list of values, got {each!r:.200}"
            raise InvalidTask(message, calling_line(), at=("map", key))
        try:
            checked[key] = bounded_list(f"task {name!r}: map: {key}", each, ("map", key))
        except InvalidTask as error:
            raise InvalidTask(error.message, calling_line(), at=error.at) from None
        if not checked[key]:
            message = f"task {name!r}: map: {key} must not be an empty list"
            raise InvalidTask(message, calling_line(), at=("map", key))
    if not checked:
        message = f"task {name!r}: map needs at least one keyword argument, e.g. map(n=[10, 20])"
        raise InvalidTask(message, calling_line(), at=("map",))
    return checked


def mapped_task(template: Task, values: dict[str, list[Any] | Result], *, each_with_each: bool) -> MappedTask:
    """Return a mapped task.

    :param values: as returned by :func:`checked_values`.
    :raises InvalidTask: when the lists are of different lengths, or different tasks would produce the same path.
    """
    source = calling_line()
    template.is_mapped = True
    name = automatic_name(
        template.name, json.dumps(["map", template.signature(), values, each_with_each], default=repr)
    )
    try:
        rows = _rows(values, each_with_each=each_with_each)
        tasks = _tasks(template, name, rows, values)
        _reject_shared_product(template, tasks, rows)
        if not rows:
            _reject_constant_product(tasks[0], values)
    except InvalidTask as error:
        raise error if error.where else InvalidTask(f"task {name!r}: map: {error}", source, at=error.at) from None
    mapped = MappedTask(name, template, values, each_with_each=each_with_each, tasks=tasks, source=source)
    for task in tasks:
        task.mapped_task = mapped
    return mapped


def number_of_tasks(values: Mapping[str, list[Any] | Result], *, each_with_each: bool) -> int:
    """Return the number of tasks for lists in parallel, or for each value combined with each; 1 for a result."""
    lengths = [len(each) for each in values.values() if not isinstance(each, Result)]
    if len(lengths) < len(values):
        return 1
    return math.prod(lengths) if each_with_each else max(lengths)


def _rows(values: Mapping[str, list[Any] | Result], *, each_with_each: bool) -> list[dict[str, Any]]:
    """Return the values of each task; an empty list if their number is known only at run time."""
    lists = {key: each for key, each in values.items() if not isinstance(each, Result)}
    if len(lists) < len(values):
        return []
    lengths = {key: len(each) for key, each in lists.items()}
    if not each_with_each and len(set(lengths.values())) > 1:
        found = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        message = f"lists must be of equal length, but {found}; for all combinations write map_product(…)"
        other = next(key for key, length in lengths.items() if length != next(iter(lengths.values())))
        raise InvalidTask(message, at=("map", other))
    count = number_of_tasks(values, each_with_each=each_with_each)
    if count > MAX_ITEMS:
        message = f"map_product must make at most {MAX_ITEMS:,} tasks, got {count:,}; map over fewer values"
        raise InvalidTask(message, at=("map",))
    combined = itertools.product(*lists.values()) if each_with_each else zip(*lists.values())
    return [dict(zip(lists, row)) for row in combined]


def _tasks(
    template: Task, name: str, rows: Iterable[Mapping[str, Any]], values: Mapping[str, list[Any] | Result]
) -> list[Task]:
    named: dict[str, Task] = {}
    tasks = []
    for index, row in enumerate(rows):
        labels = ",".join(f"{key}={_label(key, value, values[key])}" for key, value in row.items())
        try:
            task = template.with_values(f"{name}[{labels}]", row, _Formatter(row))
        except InvalidTask as error:
            raise InvalidTask(str(error), at=_keys_in_values(error.at, row, values)) from None
        if not named.setdefault(task.name, task).is_same(task):
            task.name = f"{name}[{labels},#{index}]"  # such as 1 and "1"
        tasks.append(task)
    return tasks or [template.with_values(name, values, lambda marker: marker)]


def _keys_in_values(
    at: tuple[Any, ...], row: Mapping[str, Any], values: Mapping[str, list[Any] | Result]
) -> tuple[Any, ...]:
    """Return the location of an error in a task as a location in the mapped values, if it comes from there."""
    _, key, *rest = at if len(at) > 1 else (None, None)
    if isinstance(key, Key):
        return ("map", key, *rest) if key.key in row else at
    return ("map", key, _position(row[key], values[key]), *rest) if key in row else at


def _label(key: str, value: Any, values: Iterable[Any]) -> str:
    """Return a short text for a value, or its position if its text is not suited for a name."""
    text = _text(value)
    if text is None or not text.strip() or len(text) > _LONGEST_LABEL or not text.isprintable():
        return f"#{_position(value, values)}"
    if is_secret(key, text) or any(Secrets(secrets_of_workflow()).names_in(text)):
        return f"#{_position(value, values)}"
    return text


def _position(value: Any, values: Iterable[Any]) -> int:
    return next(index for index, other in enumerate(values) if other is value)


def _text(value: Any) -> str | None:
    if isinstance(value, Ignored):
        value = value.value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, (str, int, float)):
        return str(value)
    kind: Any = type(value)
    return None if kind.__str__ is object.__str__ or isinstance(value, Iterable) else str(value)


def _named(keys: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of names in braces; other braces, such as those of templates, do not match."""
    return re.compile(rf"(?<!\{{)\{{({'|'.join(map(re.escape, keys))})\}}(?!\}})")


class _Formatter:
    """Replacement of names in paths by the values of one task: ``build/{n}/model.npz``.

    Other braces, such as those of templates, stay.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._named = _named(values)

    def __call__(self, marker: PathMarker) -> PathMarker:
        path = self._named.sub(lambda found: self._text(marker, found[1]), marker.path)
        if path == marker.path:
            return marker
        try:
            return marker.at(path)
        except InvalidTask as error:
            raise InvalidTask(str(error), at=("map", *self._named.findall(marker.path)[:1])) from None

    def _text(self, marker: PathMarker, key: str) -> str:
        text = _text(self._values[key])
        if text is None:
            message = f"{marker!r}: {key} must have a text for a path, got {self._values[key]!r:.200}"
            raise InvalidTask(f"{message}; map over text or numbers", at=("map", key))
        return text


def _reject_constant_product(task: Task, values: Mapping[str, list[Any] | Result]) -> None:
    """Reject a product with the same path for all values, whose number is known only at run time."""
    for product in task.products:
        if not _named(values).search(product.path) and _INSTANCE not in product.path:
            folder, file = os.path.split(product.path)
            guess = os.path.join(folder, *(f"{{{key}}}" for key in values), file)
            raise InvalidTask(
                f"all of its tasks would create {product.path!r}; name the value in its path, such as {guess!r}",
                at=("products", product.path),
            )


def _reject_shared_product(template: Task, tasks: Iterable[Task], rows: Iterable[Mapping[str, Any]]) -> None:
    producers: dict[str, tuple[Task, Mapping[str, Any]]] = {}
    for task, row in zip(tasks, rows):
        for index, product in enumerate(task.products):
            other, others = producers.setdefault(product.path, (task, row))
            if not other.is_same(task):
                folder, file = os.path.split(product.path)
                guess = os.path.join(folder, *(f"{{{key}}}" for key in row if row[key] is not others[key]), file)
                raise InvalidTask(
                    f"{other.name!r} and {task.name!r} would both create {product.path!r}; name the values that differ "
                    f"in its path, such as {guess!r}",
                    at=("products", template.products[index].path) if index < len(template.products) else ("map",),
                )
