"""Values that are known only when a task runs, and that a DAG gives to a workflow.

A workflow file knows none of Airflow's own things for that. A workflow function is called with this in place of them;
it can be passed on whole, or as a part of a text, and nothing else.
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

#: How a text names one: an operator knows their values by name, see the parameter `arguments` of our operators.
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NAMED = re.compile(rf"\{{\{{ task\.arguments\[({_QUOTED})\](.*?) \}}\}}")
_LIKE_NAMED = re.compile(r"\{\{\s*task.arguments", re.IGNORECASE)
_KEY = re.compile(rf"\[(-?\d+|{_QUOTED})\]")

_DECIDES = "cannot decide of what the workflow is made"
_RECKONED = "cannot be reckoned with before"

#: What Python may ask a value for that is not known yet.
_DECIDING = ("bool", "iter", "len", "contains", "lt", "le", "gt", "ge")
_RECKONING = ("index", "int", "float", "complex", "round", "trunc", "floor", "ceil", "abs", "neg", "pos", "invert")
_RECKONING_WITH = (
    "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift", "and", "or", "xor",
)  # fmt: skip


class RuntimeValue(Placeholder):
    """A value that is known only when a task runs, or a part of one: ``config["lr"]``.

    In a text it is a template that is filled in then.

    :param stands_for: what it is known by.
    :param way: the way into it: keys of objects and positions in lists.
    """

    def __init__(self, stands_for: str, key_path: tuple[str | int, ...] = ()) -> None:
        super().__init__(key_path)
        self.stands_for = stands_for

    def _by(self, way: tuple[str | int, ...]) -> RuntimeValue:
        return RuntimeValue(self.stands_for, way)

    def __str__(self) -> str:
        """Return the template."""
        return f"{{{{ task.arguments[{_name(self)!r}] }}}}"

    def __fspath__(self) -> str:
        """Return the template, so that it can be a path."""
        return str(self)

    def __format__(self, form: str) -> str:
        """Return the template; a form would be that of the template, not of the value."""
        if form:
            raise self._unknown(f"cannot be written as {form!r} before")
        return str(self)

    def __add__(self, other: object) -> str:
        """Return a text that it is the first part of."""
        if isinstance(other, str):
            return str(self) + other
        raise self._unknown(_RECKONED)

    def __radd__(self, other: object) -> str:
        """Return a text that it is the last part of."""
        if isinstance(other, str):
            return other + str(self)
        raise self._unknown(_RECKONED)

    def __eq__(self, other: object) -> bool:
        """Tell whether another one is the same part of the same; refuse to let a file decide by the value."""
        if isinstance(other, RuntimeValue):
            return (self.stands_for, self.key_path) == (other.stands_for, other.key_path)
        if not is_own_file(sys._getframe(1).f_code.co_filename):
            raise self._unknown(_DECIDES)
        return False

    def __hash__(self) -> int:
        """Return the hash of what it says."""
        return hash((self.stands_for, self.key_path))

    def keys(self) -> NoReturn:
        """Refuse to be taken for a mapping, as in ``{**config}``."""
        raise self._unknown(_DECIDES)

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what the value may have; what Python itself asks for is just not there."""
        if name.startswith("_"):
            raise AttributeError(name)
        unknown = self._unknown(f"has no {name!r} before; a part of it is named by its key, [{name!r}]")
        raise _NoAttribute(unknown.message, unknown.where)

    def __repr__(self) -> str:
        return f"<{_name(self)}>"

    def _unknown(self, so: str) -> InvalidWorkflow:
        return InvalidWorkflow(
            f"{self!r} is known only when a task runs, and {so}; pass it on to a task, or give it a value while the "
            "DAG is parsed",
            calling_line(),
        )


class _NoAttribute(InvalidWorkflow, AttributeError):
    """What is not known yet is asked for an attribute; there is none, to whoever only wants to know that."""


def _refuse(operations: Iterable[str], so: str) -> None:
    """Have one say, whatever operation Python asks for, that it is not known yet."""

    def refuse(self: RuntimeValue, *_: object) -> NoReturn:
        raise self._unknown(so)

    for operation in operations:
        setattr(RuntimeValue, f"__{operation}__", refuse)


_refuse(_DECIDING, _DECIDES)
_refuse(_RECKONING, _RECKONED)
_refuse((side + operation for operation in _RECKONING_WITH for side in ("", "r")), _RECKONED)


def as_text(value: Any) -> Any:
    """Copy a value, however deep, with the template in place of each that is known only when a task runs."""
    if isinstance(value, RuntimeValue):
        return str(value)
    if isinstance(value, Mapping):
        return {key: as_text(item) for key, item in value.items()}
    return type(value)(map(as_text, value)) if type(value) in (list, tuple) else value


def names_in(text: str) -> list[str]:
    """Return by what name each is known that the templates in a text name; a part of one has a name of its own.

    :raises InvalidTask: when what was put into the text is not what stands there any more.
    """
    if "{{" not in text:
        return []
    names = [ast.literal_eval(quoted) for quoted, _ in _NAMED.findall(text)]
    if len(_LIKE_NAMED.findall(text)) > len(names):
        raise InvalidTask(
            f"the text {text!r} was changed after a value had been put into it that is known only when the task runs; "
            "put the value in as it is, and have the task change the text"
        )
    return names


def holds_value(text: str) -> bool:
    """Tell whether a value that is known only when a task runs was put into a text."""
    return bool(_NAMED.search(text))


def without_values(text: str) -> str:
    """Return a text without the values that were put into it."""
    return _NAMED.sub("", text)


def named(name: str) -> RuntimeValue:
    """Return what is known by a name that is in a text."""
    stands_for = re.match(r"[\w.]*", name)[0]  # type: ignore[index]  # it matches any text
    return RuntimeValue(stands_for, tuple(ast.literal_eval(key) for key in _KEY.findall(name[len(stands_for) :])))


def readable(text: str) -> str:
    """Return a text for people, with the names of those that its templates name."""
    return _NAMED.sub(lambda found: ast.literal_eval(found[1]) + found[2], text)


def _name(value: RuntimeValue) -> str:
    return value.stands_for + "".join(f"[{key!r}]" for key in value.key_path)
