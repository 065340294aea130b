"""Values in the parameters of a task that are more than what they say: paths, ignored ones, results of other tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable, Union

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.paths import PathMarker

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


class Result:
    """What a task leaves as its result, or a part of that: ``generate.result["seed"]``.

    :param task: the task.
    :param keys: the way into the result: keys of objects and positions in lists.
    """

    def __init__(self, task: Task, keys: tuple[str | int, ...] = ()) -> None:
        self.task = task
        self.keys = keys

    def __getitem__(self, key: str | int) -> Result:
        """Return a part of the result.

        :raises InvalidTask: for anything but a key or a position.
        """
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise InvalidTask(f"{self!r}: a part of a result is named by a key or a position, not {key!r}")
        return Result(self.task, (*self.keys, key))

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

    def of(self, value: Any) -> Any:
        """Return this part of a result.

        :raises InvalidTask: when there is no such part.
        """
        part = value
        for at, key in enumerate(self.keys):
            try:
                if isinstance(part, str):
                    raise TypeError("a letter of a text is no part of it")
                part = part[key]
            except (LookupError, TypeError):
                asked = f"{type(self)(self.task, self.keys[: at + 1])!r}"
                raise InvalidTask(f"there is no {asked}: {_what(part)}") from None
        return part

    def __eq__(self, other: object) -> bool:
        """Results are equal that are the same part of the same task's."""
        return isinstance(other, Result) and (self.task.name, self.keys) == (other.task.name, other.keys)

    def __hash__(self) -> int:
        """Return the hash of what it says."""
        return hash((self.task.name, self.keys))

    def __repr__(self) -> str:
        return f"{self.task.name}.result" + "".join(f"[{key!r}]" for key in self.keys)


#: What is replaced by a plain value before a task is run.
Marker = Union[PathMarker, Ignored, Result]

_MARKERS = (PathMarker, Ignored, Result)


def markers(value: Any) -> Iterator[Marker]:
    """Return the markers in a value, however deep, those inside of ignored ones as well."""
    if isinstance(value, _MARKERS):
        yield value
    if isinstance(value, Ignored):
        yield from markers(value.value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from markers(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from markers(item)


def filled(value: Any, fill: Callable[[Marker], Any], *, keep_ignored: bool = False) -> Any:
    """Copy a value, however deep, with each marker replaced.

    :param fill: returns what stands in place of a marker; not asked for an ignored value, which stands for itself.
    :param keep_ignored: leave it known that a value is ignored.
    """
    if isinstance(value, Ignored):
        inner = filled(value.value, fill, keep_ignored=keep_ignored)
        return Ignored(inner) if keep_ignored else inner
    if isinstance(value, _MARKERS):
        return fill(value)
    if isinstance(value, Mapping):
        return {key: filled(item, fill, keep_ignored=keep_ignored) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [filled(item, fill, keep_ignored=keep_ignored) for item in value]
    return value


def _what(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"the object has the keys {', '.join(map(repr, list(value)[:10])) or 'none'}"
    if isinstance(value, list):
        return f"the list has {len(value)} items"
    if value is None:
        return "the task left no result; have the module write JSON to the file that $SEWER_RESULT_FILE names"
    return f"it is {value!r:.80}, which has no parts"
