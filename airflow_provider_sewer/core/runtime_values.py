"""Placeholders of Airflow's run-time values in workflow files.

Workflow files do not use Airflow's own objects. A workflow function is called with these placeholders instead. They can
be passed on, also in part or inside a text; any other use raises an error.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.placeholders import Placeholder
from airflow_provider_sewer.core.source import calling_line, is_own_file

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
