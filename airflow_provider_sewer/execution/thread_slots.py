"""Slots that limit how many threads execute a block concurrently."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SLICE = 0.2


class Slots:
    """Limit on the threads of this process that execute a block concurrently; in a forked child, all slots are free.

    :param count: number of slots.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free_all()
        os.register_at_fork(after_in_child=self._free_all)

    @contextmanager
    def taken(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a slot for a block.

        :param check: called several times a second while no slot is free; it can raise to end the wait.
        """
        semaphore = self._semaphore
        while not semaphore.acquire(timeout=_SLICE):
            check()
        try:
            yield
        finally:
            semaphore.release()

    def _free_all(self) -> None:
        self._semaphore = threading.BoundedSemaphore(self._count)
