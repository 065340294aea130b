"""What can go wrong, as one small family.

Every message says what happened, where, and what to do about it; a program tells the members apart
by their class.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_sewer.core.source import SourceLine

#: How many known names a message lists.
_MOST_NAMES = 30


class SewerError(Exception):
    """The base of everything this package raises on purpose.

    :param message: what happened, and what to do.
    :param where: the line of the workflow file it happened at, if there is one.
    """

    def __init__(self, message: str, where: SourceLine | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class WorkflowFileError(SewerError):
    """A workflow file cannot be read, or does not load."""


class InvalidTask(SewerError):
    """A task says something that cannot be run."""


class InvalidWorkflow(SewerError):
    """The tasks do not make a workflow: a cycle, a name used twice, an unknown name."""


class InterpreterError(SewerError):
    """The interpreter is missing, or is no Python."""


class WorkdirError(SewerError):
    """The working directory is missing, or is no directory."""


class ModuleMissing(SewerError):
    """The interpreter has no such module."""


class ModuleFailed(SewerError):
    """The module ran and failed, or its result cannot be read.

    :param exit_code: what it exited with; ``None`` where a signal ended it or none is known.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ModuleStopped(SewerError):
    """The module was ended on request before it was done."""


class WorkflowFailed(SewerError):
    """A workflow that ran plainly did not succeed as a whole."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Say that a name is unknown, which ones are known, and which was probably meant."""
    names = list(known)
    close = get_close_matches(str(name), names, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"unknown {kind} {name!r}{guess} Known: {', '.join(map(repr, names[:_MOST_NAMES])) or 'none'}{more}."
