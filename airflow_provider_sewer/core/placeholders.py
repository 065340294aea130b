"""Placeholders of values that are known only at run time, and of their parts."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Union

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.source import calling_line, is_own_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from airflow_provider_sewer.core.task import Task


class Placeholder:
    """Value that is known only at run time, or a part of it, such as ``value["seed"]``.

    :param key_path: keys of objects and positions in lists that lead to the part.
    """

    #: Description of the value ``None`` in messages.
    _if_none = "it is None"

    def __init__(self, key_path: tuple[str | int, ...]) -> None:
        self.key_path = key_path

    def _by(self, key_path: tuple[str | int, ...]) -> Self:
        raise NotImplementedError

    def __getitem__(self, key: str | int) -> Self:
        """Return a part of it.

        :raises InvalidTask: for anything but a key or a position.
        """
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise InvalidTask(f"{self!r}: select a part by a key or a position, got {key!r:.200}")
        return self._by((*self.key_path, key))

    def resolve(self, value: Any) -> Any:
        """Return this part of the value.

        :raises InvalidTask: when there is no such part.
        """
        part = value
        for index, key in enumerate(self.key_path):
            try:
                if isinstance(part, str):
                    raise TypeError("text has no parts")
                part = part[key]
            except (LookupError, TypeError):
                missing = self._by(self.key_path[: index + 1])
                raise InvalidTask(f"there is no {missing!r}: {self._describe(part)}") from None
        return part

    def _describe(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return f"the object has the keys {', '.join(map(repr, list(value)[:10])) or 'none'}"
        if isinstance(value, list):
            return f"the list has {len(value)} items"
        return self._if_none if value is None else f"it is {value!r:.80}, which has no parts"


#: Reference in a text; the operator resolves it by name, see the parameter `arguments` of the operators.
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NAMED = re.compile(rf"\{{\{{ task\.arguments\[({_QUOTED})\](.*?) \}}\}}")
_LIKE_NAMED = re.compile(r"\{\{\s*task.arguments", re.IGNORECASE)
_KEY = re.compile(rf"\[(-?\d+|{_QUOTED})\]")

_IN_CONDITIONS = "cannot be used in conditions, comparisons or loops"
_IN_ARITHMETIC = "cannot be used in arithmetic"

#: Operations of Python that are rejected, by their effect.
_CONDITIONS = ("bool", "iter", "len", "contains", "lt", "le", "gt", "ge")
_ARITHMETIC = ("index", "int", "float", "complex", "round", "trunc", "floor", "ceil", "abs", "neg", "pos", "invert")
_BINARY_ARITHMETIC = (
    "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and", "or", "xor",
)  # fmt: skip


class RuntimeValue(Placeholder):
    """Value that is known only when a task runs, or a part of it: ``config["lr"]``.

    In a text, it is a template that is rendered then.

    :param stands_for: its name.
    :param key_path: keys of objects and positions in lists that lead to the part.
    """

    def __init__(self, stands_for: str, key_path: tuple[str | int, ...] = ()) -> None:
        super().__init__(key_path)
        self.stands_for = stands_for

    def _by(self, key_path: tuple[str | int, ...]) -> RuntimeValue:
        return RuntimeValue(self.stands_for, key_path)

    def __str__(self) -> str:
        """Return the template."""
        return f"{{{{ task.arguments[{_name(self)!r}] }}}}"

    def __fspath__(self) -> str:
        """Return the template, so that the value can be a path."""
        return str(self)

    def __format__(self, form: str) -> str:
        """Return the template; a format specification would apply to the template instead of the value."""
        if form:
            raise self._unknown(f"cannot be formatted with {form!r}")
        return str(self)

    def __add__(self, other: object) -> str:
        """Return the template followed by a text."""
        if isinstance(other, str):
            return str(self) + other
        raise self._unknown(_IN_ARITHMETIC)

    def __radd__(self, other: object) -> str:
        """Return the template after a text."""
        if isinstance(other, str):
            return other + str(self)
        raise self._unknown(_IN_ARITHMETIC)

    def __eq__(self, other: object) -> bool:
        """Return whether another value has the same name and part; reject a comparison in a workflow file."""
        if isinstance(other, RuntimeValue):
            return (self.stands_for, self.key_path) == (other.stands_for, other.key_path)
        if not is_own_file(sys._getframe(1).f_code.co_filename):
            raise self._unknown(_IN_CONDITIONS)
        return False

    def __hash__(self) -> int:
        """Return the hash of name and part."""
        return hash((self.stands_for, self.key_path))

    def keys(self) -> NoReturn:
        """Reject the use as a mapping, as in ``{**config}``."""
        raise self._unknown(_IN_CONDITIONS)

    def __getattr__(self, name: str) -> NoReturn:
        """Reject attributes; names that Python itself looks up raise a plain ``AttributeError``."""
        if name.startswith("_"):
            raise AttributeError(name)
        unknown = self._unknown(f"has no attribute {name!r}; select a part of it by its key, [{name!r}]")
        raise _NoAttribute(unknown.message, unknown.where)

    def __repr__(self) -> str:
        return f"<{_name(self)}>"

    def _unknown(self, reason: str) -> InvalidWorkflow:
        return InvalidWorkflow(
            f"{self!r} is known only when a task runs, and {reason}; pass it on to a task, or give it a value while "
            "the DAG is parsed",
            calling_line(),
        )


class _NoAttribute(InvalidWorkflow, AttributeError):
    """Access to an attribute of a placeholder; ``hasattr()`` catches it as an ``AttributeError``."""


def _reject(operations: Iterable[str], reason: str) -> None:
    """Define operations that raise an error, because the value is not known yet."""

    def reject(self: RuntimeValue, *_: object) -> NoReturn:
        raise self._unknown(reason)

    for operation in operations:
        setattr(RuntimeValue, f"__{operation}__", reject)


_reject(_CONDITIONS, _IN_CONDITIONS)
_reject(_ARITHMETIC, _IN_ARITHMETIC)
_reject((side + operation for operation in _BINARY_ARITHMETIC for side in ("", "r")), _IN_ARITHMETIC)


def as_text(value: Any) -> Any:
    """Return a deep copy of a value with each run-time value replaced by its template."""
    if isinstance(value, RuntimeValue):
        return str(value)
    if isinstance(value, Mapping):
        return {key: as_text(item) for key, item in value.items()}
    return type(value)(map(as_text, value)) if type(value) in (list, tuple) else value


def names_in(text: str) -> list[str]:
    """Return the names of the run-time values in a text; a part of a value has its own name.

    :raises InvalidTask: when a template of a run-time value was changed.
    """
    if "{{" not in text:
        return []
    names = [ast.literal_eval(quoted) for quoted, _ in _NAMED.findall(text)]
    if len(_LIKE_NAMED.findall(text)) > len(names):
        raise InvalidTask(
            f"the text {text!r} was changed after a run-time value had been put into it; put in the value unchanged, "
            "and change the text in the task"
        )
    return names


def holds_value(text: str) -> bool:
    """Return whether a text contains a run-time value."""
    return bool(_NAMED.search(text))


def parts_of(text: str) -> list[str | RuntimeValue]:
    """Return a text in parts: the run-time values in it, and the texts around them.

    :raises InvalidTask: when a template of a run-time value was changed.
    """
    names = iter(names_in(text))
    texts = _NAMED.sub("\0", text).split("\0")  # no text of a task contains NUL
    parts: list[str | RuntimeValue] = []
    for before in texts[:-1]:
        parts += [before, named(next(names))] if before else [named(next(names))]
    return parts + texts[-1:] * bool(texts[-1])


def without_values(text: str) -> str:
    """Return a text without the run-time values in it."""
    return _NAMED.sub("", text)


def named(name: str) -> RuntimeValue:
    """Return the run-time value of a name from a text."""
    stands_for = re.match(r"[\w.]*", name)[0]  # type: ignore[index]  # it matches any text
    return RuntimeValue(stands_for, tuple(ast.literal_eval(key) for key in _KEY.findall(name[len(stands_for) :])))


def readable(text: str) -> str:
    """Return a text for messages, with names in place of the templates of run-time values."""
    return _NAMED.sub(lambda found: ast.literal_eval(found[1]) + found[2], text)


def _name(value: RuntimeValue) -> str:
    return value.stands_for + "".join(f"[{key!r}]" for key in value.key_path)


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


def markers(value: Any, found: list[Marker] | None = None) -> list[Marker]:
    """Return the markers in a value, however deep, also inside ignored values.

    :param found: the list to add them to.
    """
    found = [] if found is None else found
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
            markers(item, found)
    return found


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


def as_written(marker: Marker) -> Any:
    """Return a placeholder as written, for where nothing runs."""
    return marker.path if isinstance(marker, PathMarker) else repr(marker)


def unignored(value: Any) -> Any:
    """Return a deep copy of a value, with ``None`` in place of ignored values."""
    if isinstance(value, Ignored):
        return None
    if isinstance(value, Mapping):
        return {str(key): unignored(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [unignored(item) for item in value]
    return value


def deep_copy(value: Any) -> Any:
    """Return a deep copy of a task's arguments: mappings as dictionaries, lists and tuples as lists.

    Other objects are shared.
    """
    return replace_placeholders(value, lambda marker: marker, keep_ignored=True)


def deep_copy_plain(value: Any) -> Any:
    """Return a deep copy of dictionaries, lists, tuples and sets, each of the same type.

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
