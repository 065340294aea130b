"""Where in a workflow file something was written, so that errors can say so."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

#: The folder that this package is.
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

#: What the package's spec says of itself in an interpreter that it was lent to.
EXTERNAL_NAME = "lent"


class SourceLine(NamedTuple):
    """A line of a file.

    :param file: the file's path, as Python knows it.
    :param line: the line's number, from 1; 0 for the file as a whole.
    :param column: the place in the line, from 1; 0 for the line as a whole.
    """

    file: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        """Write it the way editors and terminals make clickable."""
        return ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])

    @property
    def folder(self) -> str:
        """Return the folder of the file."""
        return os.path.dirname(os.path.abspath(self.file))


_written_at: ContextVar[SourceLine | None] = ContextVar("sewer_written_at", default=None)


@contextmanager
def written_at(place: SourceLine) -> Iterator[None]:
    """Say where a person wrote what is made in the block, where that is no Python code.

    :param place: the line.
    """
    token = _written_at.set(place)
    try:
        yield
    finally:
        _written_at.reset(token)


def is_own_file(file: str) -> bool:
    """Tell whether a file is part of this package, and so nothing that a person wrote."""
    return _is_below(PACKAGE, file if file.startswith("/") else os.path.abspath(file))


@lru_cache(maxsize=1024)  # asked for each line of each stack
def _is_below(folder: str, file: str) -> bool:
    return os.path.abspath(file).startswith(folder + os.sep)


def calling_line() -> SourceLine:
    """Return the line outside this package that led to the call being executed."""
    if place := _written_at.get():
        return place
    frame = sys._getframe(1)
    while frame.f_back and is_own_file(frame.f_code.co_filename):
        frame = frame.f_back
    return SourceLine(frame.f_code.co_filename, frame.f_lineno)


def executing_module() -> str | None:
    """Return the name of the module whose top-level code led to the call being executed: the innermost one."""
    frame: FrameType | None = sys._getframe(1)
    while frame and (frame.f_code.co_name != "<module>" or "__name__" not in frame.f_globals):
        frame = frame.f_back
    return str(frame.f_globals["__name__"]) if frame else None
