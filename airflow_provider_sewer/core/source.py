"""Source lines of workflow files, for messages."""

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

#: The folder of this package.
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

#: Attribute value of the package's spec in another interpreter that uses the package from here.
EXTERNAL_NAME = "lent"


class SourceLine(NamedTuple):
    """Line of a file.

    :param file: the file's path, as Python knows it.
    :param line: the line's number, from 1; 0 for the whole file.
    :param column: the column, from 1; 0 for the whole line.
    """

    file: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        """Return the form that editors and terminals make clickable."""
        return ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)])

    @property
    def folder(self) -> str:
        """Return the folder of the file."""
        return os.path.dirname(os.path.abspath(self.file))


_written_at: ContextVar[SourceLine | None] = ContextVar("sewer_written_at", default=None)


@contextmanager
def written_at(place: SourceLine) -> Iterator[None]:
    """Set the line of the objects that are created in the block, for files that are not Python code.

    :param place: the line.
    """
    token = _written_at.set(place)
    try:
        yield
    finally:
        _written_at.reset(token)


def is_own_file(file: str) -> bool:
    """Return whether a file is part of this package."""
    return _is_below(PACKAGE, file if file.startswith("/") else os.path.abspath(file))


@lru_cache(maxsize=1024)  # called for each line of each stack
def _is_below(folder: str, file: str) -> bool:
    return os.path.abspath(file).startswith(folder + os.sep)


def calling_line() -> SourceLine:
    """Return the line outside this package that led to the current call."""
    if place := _written_at.get():
        return place
    frame = sys._getframe(1)
    while frame.f_back and is_own_file(frame.f_code.co_filename):
        frame = frame.f_back
    return SourceLine(frame.f_code.co_filename, frame.f_lineno)


def executing_module() -> str | None:
    """Return the name of the innermost module whose top-level code led to the current call."""
    frame: FrameType | None = sys._getframe(1)
    while frame and (frame.f_code.co_name != "<module>" or "__name__" not in frame.f_globals):
        frame = frame.f_back
    return str(frame.f_globals["__name__"]) if frame else None
