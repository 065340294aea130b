"""Pool of worker threads."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class WorkerThreads:
    """Pool of as many threads as there were concurrent calls.

    ``concurrent.futures`` of the standard library stores a result for each call, which costs as much as to follow a
    short task; its import costs more.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all calls have returned."""
        for _thread in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def put(self, function: Callable[[], None], at_once: int) -> None:
        """Run a function, which must not raise, in a thread of the pool.

        :param at_once: number of concurrent calls, including this one.
        """
        self._todo.put(function)
        if len(self._threads) < at_once:
            thread = threading.Thread(target=self._work, name="sewer-worker")
            try:
                thread.start()
            except RuntimeError:  # the system allows no more threads: the existing ones run the calls in turn
                if not self._threads:
                    raise
            else:
                self._threads.append(thread)

    def _work(self) -> None:
        while (function := self._todo.get()) is not None:
            function()
