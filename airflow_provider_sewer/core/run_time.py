"""Values that are known only when a task runs, and that a DAG gives to a workflow.

A workflow file knows none of Airflow's own things for that. A workflow function is called with this in place of them;
it can be passed on whole, or as a part of a text, and nothing else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.later import Later
from airflow_provider_sewer.core.source import calling_line, is_own_file

#: How a text names one: an operator knows their values by name, see the parameter `arguments` of our operators.
_NAMED = re.compile(r"\{\{ task\.arguments\['([^']*)'\](.*?) \}\}")


class RunTimeValue(Later):
    """A value that is known only when a task runs, or a part of one: ``config["lr"]``.

    In a text it is a template that is filled in then.

    :param name: what it is known by.
    :param keys: the way into it: keys of objects and positions in lists.
    """

    def __init__(self, name: str, keys: tuple[str | int, ...] = ()) -> None:
        super().__init__(keys)
        self.name = name

    def _with_keys(self, keys: tuple[str | int, ...]) -> RunTimeValue:
        return RunTimeValue(self.name, keys)

    def __str__(self) -> str:
        """Return the template."""
        keys = "".join(f"[{key!r}]" for key in self.keys)
        return f"{{{{ task.arguments[{self.name!r}]{keys} }}}}"

    def __fspath__(self) -> str:
        """Return the template, so that it can be a path."""
        return str(self)

    def __format__(self, form: str) -> str:
        """Return the template; a form would be that of the template, not of the value."""
        if form:
            raise TypeError(f"{self!r} is known only when the task runs, and cannot be written as {form!r} before")
        return str(self)

    def __add__(self, other: object) -> str:
        """Return a text that it is the first part of."""
        return str(self) + other if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> str:
        """Return a text that it is the last part of."""
        return other + str(self) if isinstance(other, str) else NotImplemented

    def __bool__(self) -> bool:
        """Refuse: a workflow is the same in all runs."""
        raise self._undecided()

    def __iter__(self) -> NoReturn:
        """Refuse, as for :meth:`__bool__`."""
        raise self._undecided()

    def __eq__(self, other: object) -> bool:
        """Tell whether another one is the same part of the same; refuse to let a file decide by the value."""
        if isinstance(other, RunTimeValue):
            return (self.name, self.keys) == (other.name, other.keys)
        if not is_own_file(sys._getframe(1).f_code.co_filename):
            raise self._undecided()
        return False

    def __hash__(self) -> int:
        """Return the hash of what it says."""
        return hash((self.name, self.keys))

    def __repr__(self) -> str:
        return f"<{self.name}{''.join(f'[{key!r}]' for key in self.keys)}>"

    def _undecided(self) -> InvalidWorkflow:
        return InvalidWorkflow(
            f"{self!r} is known only when a task runs, and cannot decide of what the workflow is made; pass it on to a "
            "task, or give it a value while the DAG is parsed",
            calling_line(),
        )


def as_text(value: Any) -> Any:
    """Copy a value, however deep, with the template in place of each that is known only when a task runs."""
    if isinstance(value, RunTimeValue):
        return str(value)
    if isinstance(value, Mapping):
        return {key: as_text(item) for key, item in value.items()}
    return type(value)(map(as_text, value)) if type(value) in (list, tuple) else value


def names_in(text: str) -> list[str]:
    """Return the names of those that the templates in a text name."""
    return [name for name, _ in _NAMED.findall(text)]


def readable(text: str) -> str:
    """Return a text for people, with the names of those that its templates name."""
    return _NAMED.sub(r"\1\2", text)
