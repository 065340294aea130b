"""Limits of sizes: of text for a process, and of values that expand to much more than their text."""

from __future__ import annotations

import os
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Maximum number of items in a list for a field, and of tasks in a mapped task.
MAX_ITEMS = 100_000
#: Maximum of a time in seconds, 31 years; timers of Python and Airflow overflow from 292 years on.
MAX_SECONDS = 1_000_000_000
#: Maximum of another number; from here on, Slurm and databases cannot store it.
MAX_NUMBER = 2**63 - 1
#: Maximum number of edges in a workflow.
MAX_EDGES = 1_000_000
#: Maximum size in bytes of a workflow file, or of a module that is parsed and not imported.
MAX_FILE_BYTES = 16 * 1024 * 1024
#: Maximum bytes of one argument, or of one ``NAME=value``, in Linux: 128 KiB, less the final NUL.
MAX_BYTES = 131_071
#: Maximum nesting of lists and objects in a record; and in a result, which can be part of a record.
DEEPEST_RECORD, DEEPEST_RESULT = 120, 100


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


def bounded_list(field: str, values: Iterable[Any], at: tuple[Any, ...] = ()) -> list[Any]:
    """Return values as a list.

    :param field: the field of the values, for the message.
    :param at: see :class:`~airflow_provider_sewer.core.errors.SewerError`.
    :raises InvalidTask: when there are too many, also for an endless iterator.
    """
    listed = list(islice(values, MAX_ITEMS + 1))
    if len(listed) > MAX_ITEMS:
        message = f"{field} must have at most {MAX_ITEMS:,} values, got more; have the module read them from a file"
        raise InvalidTask(message, at=at or (field,))
    return listed


def joined_pattern(parts: Sequence[str], gap: str) -> re.Pattern[str]:
    r"""Return a pattern of these parts with a gap between each two of them, for ``fullmatch``.

    Each gap is as short as possible and is not matched again. As gaps match any text, this finds a match if there is
    one, and avoids exponential time.

    :param parts: patterns of a fixed length each.
    :param gap: ``.*`` or ``.+``.
    """
    if len(parts) == 1:
        return re.compile(parts[0], re.DOTALL)
    first, *middle, last = parts
    tried_once = "".join(f"(?=(?P<g{at}>{gap}?{part}))(?P=g{at})" for at, part in enumerate(middle))
    return re.compile(f"{first}{tried_once}{gap}{last}", re.DOTALL)
