"""The pool of worker threads."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from airflow_provider_sewer.execution.workflow_runner import WorkerThreads


def test_worker_threads_grow_with_concurrent_calls() -> None:
    """Two calls that wait for each other both start; later calls reuse the same threads."""
    meet = threading.Barrier(2, timeout=60)
    done: SimpleQueue[int] = SimpleQueue()

    def thing() -> None:
        meet.wait()
        done.put(threading.get_ident())

    with WorkerThreads() as workers:
        for _ in range(3):
            workers.put(thing, at_once=1)
            workers.put(thing, at_once=2)
        threads = {done.get(timeout=60) for _ in range(6)}

    assert len(threads) == 2


def test_worker_threads_at_thread_limit_queue_calls(script) -> None:
    """Things are queued and done one after another; nothing fails."""
    done = script(
        """
        import resource, threading
        from airflow_provider_sewer.execution.workflow_runner import WorkerThreads
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        threading.stack_size(1 << 29)
        resource.setrlimit(resource.RLIMIT_AS, (size + 3 * (1 << 29) - 1, -1))  # so there is room for two
        count, may_end = [], threading.Event()
        def thing():
            may_end.wait()
            count.append(threading.get_ident())
        with WorkerThreads() as workers:
            for number in range(9):
                workers.put(thing, at_once=number + 1)
            may_end.set()
        print(len(count), len(set(count)))
        """
    )

    assert done.output() == "9 2\n"
