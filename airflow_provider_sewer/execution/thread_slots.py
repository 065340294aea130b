"""Slots: a bound on how many threads do a thing at once."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SLICE = 0.2


class Slots:
    """A bound on how many threads of this process do a thing at once; a forked child begins with all slots free.

    :param count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._free_all()
        os.register_at_fork(after_in_child=self._free_all)

    @contextmanager
    def taken(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a slot for a block.

        :param check: called several times a second while there is none; raises to wait no longer.
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
