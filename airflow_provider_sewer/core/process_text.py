"""Text as a process can be given it: what arguments, variables and paths have in common."""

from __future__ import annotations

import os

#: Bytes that Linux takes as one argument, or as one ``NAME=value``: 128 KiB, less the NUL that ends it.
MAX_BYTES = 131_071


def invalid_reason(text: str, *, longest: int | None = MAX_BYTES) -> str | None:
    """Return why a process cannot be given this text, or ``None`` if it can.

    :param longest: bytes that it may have; any number of them where ``None``.
    """
    if "\0" in text:
        return "holds a NUL byte; take it out"
    if text.isascii() and len(text) <= MAX_BYTES:
        return None
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError as error:
        return f"holds {text[error.start]!r}, which cannot be passed to a process ({error.reason})"
    if longest is not None and size > longest:
        return f"is too long: {size:,} bytes, and a process takes {longest:,}; write it to a file and give its path"
    return None
