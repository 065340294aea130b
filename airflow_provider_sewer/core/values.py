"""Values in the parameters of a task that are more than what they say: paths, ignored ones, what is known later."""

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
    """A value that does not tell two tasks apart, and whose change makes nothing stale, such as a number of threads.

    :param value: the value.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Ignored values are equal, whatever they are."""
        return isinstance(other, Ignored)

    def __hash__(self) -> int:
        """Return the same for all."""
        return hash(Ignored)

    def __repr__(self) -> str:
        return f"Ignored({self.value!r})"


class Result(Placeholder):
    """What a task leaves as its result, or a part of that: ``generate.result["seed"]``.

    :param task: the task.
    :param way: the way into the result: keys of objects and positions in lists.
    """

    _if_none = "the task left no result; have the module write JSON to the file that $SEWER_RESULT_FILE names"

    def __init__(self, task: Task, key_path: tuple[str | int, ...] = ()) -> None:
        super().__init__(key_path)
        self.task = task

    def _by(self, way: tuple[str | int, ...]) -> Result:
        return Result(self.task, way)

    def __iter__(self) -> Iterator[Any]:
        """Refuse: how long a result is shows only when its task has run."""
        raise TypeError(f"{self!r} is known only once its task has run, and cannot be gone through before")

    def __bool__(self) -> bool:
        """Refuse, as for :meth:`__iter__`."""
        raise TypeError(f"{self!r} is known only once its task has run, and is neither true nor false before")

    def __format__(self, _: str) -> str:
        """Refuse: a text into which it is put would hold its name."""
        raise TypeError(
            f"{self!r} is known only once its task has run, and cannot be put into a text before; pass it as a "
            "parameter of its own"
        )

    def __eq__(self, other: object) -> bool:
        """Results are equal that are the same part of the same task's."""
        return isinstance(other, Result) and (self.task.name, self.key_path) == (other.task.name, other.key_path)

    def __hash__(self) -> int:
        """Return the hash of what it says."""
        return hash((self.task.name, self.key_path))

    def __repr__(self) -> str:
        return f"{self.task.name}.result" + "".join(f"[{key!r}]" for key in self.key_path)


#: What is replaced by a plain value before a task is run.
Marker = Union[PathMarker, Ignored, Result, RuntimeValue]

_MARKERS = (PathMarker, Ignored, Result, RuntimeValue)
#: The types of most values by far, in which there is nothing else.
PLAIN = frozenset({str, int, float, bool, type(None)})


def markers(value: Any) -> list[Marker]:
    """Return the markers in a value, however deep, those inside of ignored ones as well."""
    found: list[Marker] = []
    _add_markers(value, found)
    return found


def _add_markers(value: Any, found: list[Marker]) -> None:
    kind = type(value)
    if kind is dict or kind is list or kind is tuple:  # most are, and ask no further
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
    """Copy a value, however deep, with each marker replaced.

    :param fill: returns what stands in place of a marker; not asked for an ignored value, which stands for itself.
    :param keep_ignored: leave it known that a value is ignored.
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
    """Copy dictionaries, lists, tuples and sets, however deep, so that a change of one does not reach the other.

    Anything else stands for itself.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is dict:
        return {key: deep_copy_plain(item) for key, item in value.items()}
    if kind is list or kind is set or kind is tuple:
        return kind(map(deep_copy_plain, value))
    return value._make(map(deep_copy_plain, value)) if isinstance(value, tuple) and hasattr(value, "_make") else value
