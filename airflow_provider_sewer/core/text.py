"""Text as a process can be given it: what arguments, variables and paths have in common."""

from __future__ import annotations

import os

#: Bytes that Linux takes as one argument, or as one ``NAME=value``: 128 KiB, less the NUL that ends it.
LONGEST = 131_071


def why_unfit(text: str) -> str | None:
    """Return why a process cannot be given this text, or ``None`` if it can."""
    if "\0" in text:
        return "holds a NUL byte; take it out"
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError as error:
        return f"holds {text[error.start]!r}, which cannot be passed to a process ({error.reason})"
    if size > LONGEST:
        return f"is too long: {size:,} bytes, and a process takes {LONGEST:,}; write it to a file and give its path"
    return None
