"""How the time of a computation grows with the size of its input; a ratio, which a busy machine does not change."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Growth with twice the input that is linear for sure: in quadratic time it is four.
LINEAR = 3


def growth(work: Callable[[int], object], size: int, *, times: int = 5) -> float:
    """Return how many times longer the computation takes for twice the size, in CPU time; the best of several."""

    def seconds(size: int) -> float:
        gc.collect()
        gc.disable()  # a collection looks at the objects of all tests that ran before
        try:
            began = time.process_time()
            work(size)
            return time.process_time() - began
        finally:
            gc.enable()

    pairs = [(seconds(size), seconds(2 * size)) for _ in range(times)]
    return min(longer for _, longer in pairs) / min(shorter for shorter, _ in pairs)
