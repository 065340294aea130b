"""Special values in the parameters of a task: paths, ignored values, placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Union

from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.placeholders import Placeholder
from airflow_provider_sewer.core.runtime_values import RuntimeValue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_sewer.core.task import Task


class Ignored:
    """Value that does not distinguish two tasks, and whose change makes no product stale, such as a number of threads.

    :param value: the value.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Return whether the other value is ignored as well."""
        return isinstance(other, Ignored)

    def __hash__(self) -> int:
        """Return the same hash for all ignored values."""
        return hash(Ignored)

    def __repr__(self) -> str:
        return f"Ignored({self.value!r})"


class Result(Placeholder):
    """Placeholder of a task's result, or of a part of it: ``generate.result["seed"]``.

    :param task: the task.
    :param key_path: keys of objects and positions in lists that lead to the part.
    """

    _if_none = "the task has no result; have the module write JSON to the file that $SEWER_RESULT_FILE names"

    def __init__(self, task: Task, key_path: tuple[str | int, ...] = ()) -> None:
        super().__init__(key_path)
        self.task = task

    def _by(self, key_path: tuple[str | int, ...]) -> Result:
        return Result(self.task, key_path)

    def __iter__(self) -> Iterator[Any]:
        """Reject iteration: the length of a result is known only after its task."""
        raise TypeError(f"{self!r} is known only after its task has run, and cannot be iterated before")

    def __bool__(self) -> bool:
        """Reject conditions, as for :meth:`__iter__`."""
        raise TypeError(f"{self!r} is known only after its task has run, and cannot be used in a condition before")

    def __format__(self, _: str) -> str:
        """Reject formatting: the text would contain the name of the result."""
        raise TypeError(
            f"{self!r} is known only after its task has run, and cannot be part of a text before; pass it as a "
            "parameter of its own"
        )

    def __eq__(self, other: object) -> bool:
        """Return whether another result is the same part of the same task's result."""
        return isinstance(other, Result) and (self.task.name, self.key_path) == (other.task.name, other.key_path)

    def __hash__(self) -> int:
        """Return the hash of task name and key path."""
        return hash((self.task.name, self.key_path))

    def __repr__(self) -> str:
        return f"{self.task.name}.result" + "".join(f"[{key!r}]" for key in self.key_path)


#: Values that are replaced before a task runs.
Marker = Union[PathMarker, Ignored, Result, RuntimeValue]

_MARKERS = (PathMarker, Ignored, Result, RuntimeValue)
#: Types of most values, which contain no markers.
PLAIN = frozenset({str, int, float, bool, type(None)})


def markers(value: Any) -> list[Marker]:
    """Return the markers in a value, however deep, also inside ignored values."""
    found: list[Marker] = []
    _add_markers(value, found)
    return found


def _add_markers(value: Any, found: list[Marker]) -> None:
    kind = type(value)
    if kind is dict or kind is list or kind is tuple:  # a fast path for most values
        items = value.values() if kind is dict else value
    elif isinstance(value, _MARKERS):
        found.append(value)
        items = (value.value,) if isinstance(value, Ignored) else ()
    elif isinstance(value, Mapping):
        items = value.values()
    else:
        items = value if isinstance(value, (list, tuple)) else ()
    for item in items:
        if type(item) not in PLAIN:
            _add_markers(item, found)


def replace_placeholders(value: Any, fill: Callable[[Marker], Any], *, keep_ignored: bool = False) -> Any:
    """Return a deep copy of a value with each marker replaced.

    :param fill: returns the replacement of a marker; an ignored value is replaced by its own value instead.
    :param keep_ignored: whether to keep ignored values marked.
    """
    if type(value) in PLAIN:
        return value
    if type(value) is dict:
        return {
            key: item if type(item) in PLAIN else replace_placeholders(item, fill, keep_ignored=keep_ignored)
            for key, item in value.items()
        }
    if isinstance(value, Ignored):
        inner = replace_placeholders(value.value, fill, keep_ignored=keep_ignored)
        return Ignored(inner) if keep_ignored else inner
    if isinstance(value, _MARKERS):
        return fill(value)
    if isinstance(value, Mapping):
        return {key: replace_placeholders(item, fill, keep_ignored=keep_ignored) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_placeholders(item, fill, keep_ignored=keep_ignored) for item in value]
    return value


def deep_copy_plain(value: Any) -> Any:
    """Return a deep copy of dictionaries, lists, tuples and sets.

    Other objects are shared.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is dict:
        return {key: deep_copy_plain(item) for key, item in value.items()}
    if kind is list or kind is set or kind is tuple:
        return kind(map(deep_copy_plain, value))
    return value._make(map(deep_copy_plain, value)) if isinstance(value, tuple) and hasattr(value, "_make") else value
