"""Last lines of a job's output, for messages, and for the result of a module that has written no result file."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.trusted_files import InvalidRecord, open_own
from airflow_provider_sewer.execution.output import PIECE, LineSplitter, Masker, Stream, Tail

if TYPE_CHECKING:
    from collections.abc import Collection

# Bytes at the end of a file that are read for its last lines: at most a piece, so a line is complete or too long.
_RESULT_END = PIECE


def last_lines(path: str, secrets: Collection[str] = ()) -> list[str]:
    """Return the last lines of an output file, masked, each cut to a readable width."""
    masker = Masker(secrets)
    data, is_cut = b"", False
    with suppress(OSError):
        data, is_cut = _end_of(path)
    pieces = [*masker.mask(Stream.STDOUT, pieces_of(data)), *masker.rest(Stream.STDOUT)]
    if is_cut and pieces:
        pieces[0] = pieces[0][masker.longest :]  # it may begin inside a secret
    tail = Tail()
    tail.take(pieces)
    return tail.lines


def last_line_between(path: str, begin: int, end: int, secrets: Collection[str] = ()) -> str | None:
    """Return the last line of this part of a file, masked; ``None`` if there is none, or it is too long for a result.

    :param secrets: values to mask.
    :raises OSError: when the file exists and cannot be read.
    """
    if end < begin:
        begin = 0  # the module has emptied it
    try:
        data, is_cut = _end_of(path, begin, end)
    except (FileNotFoundError, InvalidRecord):
        return None
    if is_cut:
        _, newline, data = data.partition(b"\n")
        if not newline or not data:
            return None
    tail = Tail()
    tail.take(map(Secrets(secrets).mask, pieces_of(data)))
    return tail.last_line


def _end_of(path: str, begin: int = 0, end: int | None = None) -> tuple[bytes, bool]:
    """Return the end of this part of a file, and whether it begins before that."""
    with open_own(path, is_private=False) as file:
        size = os.fstat(file.fileno()).st_size
        begin, end = max(0, begin), size if end is None else min(end, size)
        start = max(begin, end - _RESULT_END)
        file.seek(start)
        return file.read(max(0, end - start)), start > begin


def pieces_of(data: bytes) -> list[str]:
    """Return the lines of an output, long ones in pieces."""
    splitter = LineSplitter()
    return [*splitter.feed(data), *splitter.finish()]
