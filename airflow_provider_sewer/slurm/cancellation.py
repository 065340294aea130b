"""Have jobs ended that nobody wants any more: many at once, whatever becomes of who has asked for it."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob, elements_of
from airflow_provider_sewer.slurm.backend import SlurmUnreachable
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job import Job, cancel, only_told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Seconds that one cancelling may take, however many jobs it is of.
_TIMEOUT = 20.0

#: Of those that wait for a file system that hangs, there can be many before the rest has to wait too.
_THREADS = ThreadPoolExecutor(max_workers=64, thread_name_prefix="sewer-canceller")


def cancel_soon(begun: Job | PendingJob, refusal: Callable[[], str | None] = lambda: None) -> Future[str]:
    """Have a job ended, or what waits to become one, and return what there will be to say of it.

    First the run directories are told, of all that have come; that is quick, and each script looks there. Then the
    cluster is, of all Slurm jobs that there are by then at once. Cancelling the future changes nothing.

    :param refusal: returns why the job is to run on, or ``None``; it is called first, in a thread, and may block.
    """
    said: Future[str] = Future()
    said.set_running_or_notify_cancel()
    _THREADS.submit(_tell, begun, refusal, said)
    return said


def _tell(begun: Job | PendingJob, refusal: Callable[[], str | None], said: Future[str]) -> None:
    if (why := refusal()) is not None:
        said.set_result(why)
        return
    begun.directory.try_to_cancel()
    if isinstance(begun.cluster, SlurmClient):
        _Canceller.of(begun.cluster).add(begun, said)
    else:
        _THREADS.submit(_settle, [said], partial(_cancel_one, begun))


def _cancel_one(begun: Job | PendingJob) -> list[str]:
    lines: list[str] = []
    cancel(begun, lines.append, timeout=_TIMEOUT)
    return lines


def _settle(waiting: Sequence[Future[str]], act: Callable[[], Sequence[str]]) -> None:
    """Do something, and tell each who waits for it what came of it."""
    try:
        lines = act()
    except Exception as error:  # whatever it is, nobody must wait for ever
        lines = [f"Cancelling went wrong: {type(error).__name__}: {error}"] * len(waiting)
    for said, line in zip(waiting, lines, strict=True):
        said.set_result(line)


class _Canceller:
    """Cancels the jobs of one Slurm cluster: those that come meanwhile together, when it is done with the others."""

    _all: ClassVar[dict[tuple[str, ...], _Canceller]] = {}
    _lock = threading.Lock()

    def __init__(self, cluster: SlurmClient) -> None:
        self._cluster = cluster
        self._wanted: list[tuple[Job | PendingJob, Future[str]]] = []
        self._is_at_work = False

    @classmethod
    def of(cls, cluster: SlurmClient) -> _Canceller:
        """Return the one of this cluster and user in this process."""
        with cls._lock:
            return cls._all.setdefault(cluster.key, cls(cluster))

    def add(self, begun: Job | PendingJob, said: Future[str]) -> None:
        """Have one more cancelled."""
        with self._lock:
            self._wanted.append((begun, said))
            if not self._is_at_work:
                self._is_at_work = True
                _THREADS.submit(self._run)  # when all run directories are told that are to be told by now

    def _run(self) -> None:
        while wanted := self._next():
            _settle([said for _, said in wanted], partial(self._cancel, [begun for begun, _ in wanted]))

    def _next(self) -> list[tuple[Job | PendingJob, Future[str]]]:
        with self._lock:
            wanted, self._wanted = self._wanted, []
            self._is_at_work = bool(wanted)
            return wanted

    def _cancel(self, all_begun: Sequence[Job | PendingJob]) -> list[str]:
        waiting = [begun for begun in all_begun if isinstance(begun, PendingJob)]
        for each in waiting:
            each.abandon()
        jobs = [*(begun for begun in all_begun if isinstance(begun, Job)), *elements_of(waiting)]
        try:
            if jobs:
                self._cluster.cancel_all([job.ref for job in jobs], timeout=_TIMEOUT)
        except SlurmUnreachable as error:
            return [only_told(begun, error) for begun in all_begun]
        return [f"Cancelled {begun}" for begun in all_begun]
