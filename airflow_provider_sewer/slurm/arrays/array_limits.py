"""Limits of a cluster's job arrays, from its configuration."""

from __future__ import annotations

import re
from typing import NamedTuple

_MAX_NUMBERS = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)
_MAX_ELEMENTS = re.compile(r"^SchedulerParameters\s*=.*\bmax_array_tasks=(\d+)", re.MULTILINE)


class ArrayLimits(NamedTuple):
    """Limits of job arrays.

    :param numbers: upper bound of the numbers of an array's elements, ``MaxArraySize``; 0 if there are no arrays.
    :param elements: largest number of elements, ``max_array_tasks``; 0 if there is no such limit.
    """

    numbers: int
    elements: int


def read_array_limits(config: str) -> ArrayLimits:
    """Return the limits in the output of ``scontrol show config``.

    :raises ValueError: when it does not show MaxArraySize.
    """
    numbers, elements = _MAX_NUMBERS.search(config), _MAX_ELEMENTS.search(config)
    if numbers is None:
        raise ValueError("scontrol show config does not show MaxArraySize")
    return ArrayLimits(int(numbers.group(1)), int(elements.group(1)) if elements else 0)
