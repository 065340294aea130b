"""Limits of text for processes, common to arguments, variables and paths."""

from __future__ import annotations

import os

#: Maximum bytes of one argument, or of one ``NAME=value``, in Linux: 128 KiB, less the final NUL.
MAX_BYTES = 131_071


def invalid_reason(text: str, *, longest: int | None = MAX_BYTES) -> str | None:
    """Return why a text cannot be passed to a process, or ``None`` if it can.

    :param longest: maximum size in bytes; ``None`` for any size.
    """
    if "\0" in text:
        return "contains a NUL byte; remove it"
    if text.isascii() and len(text) <= MAX_BYTES:
        return None
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError as error:
        return f"contains {text[error.start]!r}, which cannot be passed to a process ({error.reason})"
    if longest is not None and size > longest:
        return f"must have at most {longest:,} bytes, got {size:,}; write it to a file and give its path"
    return None
