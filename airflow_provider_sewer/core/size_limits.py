"""How much a few characters can stand for; each bound is checked before so much is built."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: How many values a list can have that a field is given, and how many tasks one task can be mapped to.
MAX_ITEMS = 100_000
#: How many edges a workflow can have.
MAX_EDGES = 1_000_000
#: Bytes that a workflow file can have, or a module that is looked at and not imported.
MAX_FILE_BYTES = 16 * 1024 * 1024


def bounded_list(field: str, values: Iterable[Any], at: tuple[Any, ...] = ()) -> list[Any]:
    """Return values as a list.

    :param field: what they are given to, for the message.
    :param at: see :class:`~airflow_provider_sewer.core.errors.SewerError`.
    :raises InvalidTask: when there are too many, as there are of an iterator without an end.
    """
    listed = list(islice(values, MAX_ITEMS + 1))
    if len(listed) > MAX_ITEMS:
        said = f"{field} must have at most {MAX_ITEMS:,} values, got more; have the module read them from a file"
        raise InvalidTask(said, at=at or (field,))
    return listed


def joined_pattern(parts: Sequence[str], gap: str) -> re.Pattern[str]:
    r"""Return a pattern of these parts with something between each two of them, for ``fullmatch``.

    Each gap is as short as possible and is never tried again. Gaps can hold any text, so that finds a match if there is
    one, and the time does not grow with the power of the number of gaps.

    :param parts: patterns of a fixed length each.
    :param gap: ``.*`` or ``.+``.
    """
    if len(parts) == 1:
        return re.compile(parts[0], re.DOTALL)
    first, *middle, last = parts
    tried_once = "".join(f"(?=(?P<g{at}>{gap}?{part}))(?P=g{at})" for at, part in enumerate(middle))
    return re.compile(f"{first}{tried_once}{gap}{last}", re.DOTALL)
