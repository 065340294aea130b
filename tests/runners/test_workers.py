"""Things are done at once by as many threads as are needed, and no more."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from airflow_provider_sewer.runners.workers import Workers


def test_as_many_threads_as_there_are_things_at_once() -> None:
    """Two things that wait for each other are both begun; what comes later is done by the same threads."""
    meet = threading.Barrier(2, timeout=60)
    done: SimpleQueue[int] = SimpleQueue()

    def thing() -> None:
        meet.wait()
        done.put(threading.get_ident())

    with Workers() as workers:
        for _ in range(3):
            workers.put(thing, at_once=1)
            workers.put(thing, at_once=2)
        threads = {done.get(timeout=60) for _ in range(6)}

    assert len(threads) == 2
