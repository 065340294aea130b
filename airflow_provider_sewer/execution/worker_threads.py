"""Threads that each do one thing after the other."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class WorkerThreads:
    """As many threads as there were things to be done at once.

    What the standard library has for this, ``concurrent.futures``, keeps a result for each thing, and costs as much for
    that as to follow a short task; to import it costs more.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all is done."""
        for _thread in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def put(self, thing: Callable[[], None], at_once: int) -> None:
        """Have something done, which must not raise anything.

        :param at_once: how many things there are to be done now, with this one.
        """
        self._todo.put(thing)
        if len(self._threads) < at_once:
            thread = threading.Thread(target=self._work, name="sewer-worker")
            try:
                thread.start()
            except RuntimeError:  # the system has no room for one more: those that there are do one thing after another
                if not self._threads:
                    raise
            else:
                self._threads.append(thread)

    def _work(self) -> None:
        while (thing := self._todo.get()) is not None:
            thing()
