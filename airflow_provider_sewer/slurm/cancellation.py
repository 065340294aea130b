"""Cancellation of many jobs at once, also if the requesting task or thread ends."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_sewer.execution.log_lines import WarningLine
from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob, elements_of
from airflow_provider_sewer.slurm.backend import SlurmUnreachable
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job import Job, cancel, cancelled_by_directory_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Seconds that one cancellation of any number of jobs may take.
_TIMEOUT = 20.0

#: Many of these can wait for a hanging file system before the rest has to wait too.
_THREADS = ThreadPoolExecutor(max_workers=64, thread_name_prefix="sewer-canceller")


def cancel_soon(begun: Job | PendingJob, refusal: Callable[[], str | None] = lambda: None) -> Future[str]:
    """Have a job or a pending job cancelled, and return the future log line about it.

    First all job directories so far are marked; that is quick, and each script checks there. Then all Slurm jobs so far
    are cancelled with one command. Cancelling the future changes nothing.

    :param refusal: returns why the job must run on, or ``None``; it is called first, in a thread, and may block.
    """
    message: Future[str] = Future()
    message.set_running_or_notify_cancel()
    _THREADS.submit(_mark_and_cancel, begun, refusal, message)
    return message


def _mark_and_cancel(begun: Job | PendingJob, refusal: Callable[[], str | None], message: Future[str]) -> None:
    if (reason := refusal()) is not None:
        message.set_result(reason)
        return
    begun.directory.try_to_cancel()
    if isinstance(begun.cluster, SlurmClient):
        _Canceller.of(begun.cluster).add(begun, message)
    else:
        _THREADS.submit(_resolve, [message], partial(_cancel_one, begun))


def _cancel_one(begun: Job | PendingJob) -> list[str]:
    lines: list[str] = []
    cancel(begun, lines.append, timeout=_TIMEOUT)
    return lines


def _resolve(messages: Sequence[Future[str]], act: Callable[[], Sequence[str]]) -> None:
    """Call a function, and set each future to the line it returns."""
    try:
        lines = act()
    except Exception as error:  # after any error, no thread may wait for ever
        lines = [WarningLine(f"Cancelling failed: {type(error).__name__}: {error}")] * len(messages)
    for message, line in zip(messages, lines, strict=True):
        message.set_result(line)


class _Canceller:
    """Cancels the jobs of one Slurm cluster: those added during a command are cancelled together by the next one."""

    _all: ClassVar[dict[tuple[str, ...], _Canceller]] = {}
    _lock = threading.Lock()

    def __init__(self, cluster: SlurmClient) -> None:
        self._cluster = cluster
        self._queue: list[tuple[Job | PendingJob, Future[str]]] = []
        self._is_at_work = False

    @classmethod
    def of(cls, cluster: SlurmClient) -> _Canceller:
        """Return the canceller of this cluster and user in this process."""
        with cls._lock:
            return cls._all.setdefault(cluster.key, cls(cluster))

    def add(self, begun: Job | PendingJob, message: Future[str]) -> None:
        """Add a job to cancel."""
        with self._lock:
            self._queue.append((begun, message))
            if not self._is_at_work:
                self._is_at_work = True
                _THREADS.submit(self._run)  # after all job directories so far are marked

    def _run(self) -> None:
        while batch := self._next():
            _resolve([message for _, message in batch], partial(self._cancel, [begun for begun, _ in batch]))

    def _next(self) -> list[tuple[Job | PendingJob, Future[str]]]:
        with self._lock:
            batch, self._queue = self._queue, []
            self._is_at_work = bool(batch)
            return batch

    def _cancel(self, all_begun: Sequence[Job | PendingJob]) -> list[str]:
        pending = [begun for begun in all_begun if isinstance(begun, PendingJob)]
        for each in pending:
            each.abandon()
        jobs = [*(begun for begun in all_begun if isinstance(begun, Job)), *elements_of(pending)]
        try:
            if jobs:
                self._cluster.cancel_all([job.ref for job in jobs], timeout=_TIMEOUT)
        except SlurmUnreachable as error:
            return [cancelled_by_directory_line(begun, error) for begun in all_begun]
        return [f"Cancelled {begun}" for begun in all_begun]
