"""Every cancellation: of one job, of many together, of an attempt that is no job yet, and of one that does not end.

First the job directory is marked. Its script checks for the mark, so that the job ends, or does not begin, also while
the controller is unreachable. Then the backend cancels the job, if its id still is the id of this job.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_sewer.execution.job_messages import WarningLine
from airflow_provider_sewer.execution.thread_slots import Slots
from airflow_provider_sewer.slurm.arrays.registration import elements_of, withdraw
from airflow_provider_sewer.slurm.backend import JobRef, SlurmUnreachable
from airflow_provider_sewer.slurm.job import Job, PendingJob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_sewer.slurm.attempts import Attempt
    from airflow_provider_sewer.slurm.backend import JobBackend
    from airflow_provider_sewer.slurm.job_directory import JobDirectory

#: Seconds that cancelling may take: one job, jobs together, and before Airflow kills the worker, which it does five
#: seconds after SIGTERM. The mark in the job directory comes first, and a scancel outlives this process.
TIMEOUT, TIMEOUT_TOGETHER, TIMEOUT_BEFORE_KILL = 15.0, 20.0, 4.0
#: Seconds after which a job that has not ended is cancelled again, at first and at most.
_AGAIN, _AGAIN_AT_MOST = 30.0, 240.0

#: Threads that mark a job directory at once: each takes some open files.
_MARKS = Slots(8)
#: Many of these can wait for a hanging file system before the rest has to wait too.
_THREADS = ThreadPoolExecutor(max_workers=64, thread_name_prefix="sewer-canceller")


def cancel_job(
    job: Job | PendingJob, notify: Callable[[str], None], *, timeout: float = TIMEOUT, is_cleared: bool = False
) -> None:
    """Cancel a job, or an attempt that waits to become one, and log it.

    :param timeout: seconds that this may take.
    :param is_cleared: whether a user has cleared the task, so that a recorded success does not count either.
    """
    _mark(job.directory, is_cleared=is_cleared)
    for line in _cancel_marked([job], timeout):
        notify(line)


def cancel_jobs(jobs: Sequence[Job | PendingJob], *, timeout: float = TIMEOUT_TOGETHER) -> list[str]:
    """Cancel jobs, those of a cluster together, and return a log line about each.

    :param timeout: seconds that this may take.
    """
    for job in jobs:
        _mark(job.directory)
    return _cancel_marked(jobs, timeout)


def cancel_soon(job: Job | PendingJob, reason_to_keep: Callable[[], str | None]) -> Future[str]:
    """Have a job cancelled, together with others, also if the requesting task ends; return the future log line.

    First all job directories so far are marked; that is quick, and each script checks there. Then all jobs so far are
    cancelled. Cancelling the future changes nothing.

    :param reason_to_keep: returns why the job must run on, or ``None``; it is called first, in a thread, and may block.
    """
    message = _new_message()

    def mark_and_add() -> None:
        try:
            if (reason := reason_to_keep()) is not None:
                message.set_result(reason)
                return
            _mark(job.directory)
            _Batch.of(job.cluster).add(job, message, start=_THREADS.submit)  # it runs after all marks so far
        except Exception as error:  # after any error, no caller may wait for ever
            message.set_result(_failure_line(error))

    _THREADS.submit(mark_and_add)
    return message


def cancel_with_others(job: Job) -> Future[str]:
    """Mark a job, and have it cancelled together with those that other threads cancel; return the future log line.

    Neither this call nor the end of this process waits for a controller that does not answer.
    """
    message = _new_message()
    with _MARKS.taken():
        _mark(job.directory)
    _Batch.of(job.cluster).add(job, message, start=_start_daemon)
    return message


def cancel_attempt(attempt: Attempt) -> None:
    """Have the job of an attempt end, or not begin; a job without its job directory cannot begin anyway.

    :raises SlurmUnavailable: when that cannot be recorded.
    """
    attempt.record(attempt.directory.write_cancelled)


def cancel_submission(cluster: JobBackend, name: str, directory: JobDirectory) -> None:
    """Cancel the job that a failed submission may have left; the script of a job that is not found ends it.

    :param name: the name of the submission.
    :param directory: the folder with its script.
    """
    with suppress(SlurmUnreachable):
        if (found := cluster.find(name, directory.path)) is not None:
            cluster.cancel([JobRef(found, name, directory.path)], timeout=TIMEOUT)


def abort_submission(directory: JobDirectory, notify: Callable[[str], None], *, is_cleared: bool = False) -> None:
    """Have a submission under way end, and a job that it has left not begin.

    :param is_cleared: as for :func:`cancel_job`.
    """
    try:
        directory.write_cancelled(is_cleared=is_cleared)
    except OSError as error:
        notify(WarningLine(f"Cannot cancel the submission through its job directory: {error}"))


class RepeatedCancellation:
    """Cancellation of a job that can be repeated until it ends, ever more rarely; no call waits for the controller.

    :param job: the job.
    :param notify: takes log lines about it, in the thread that calls.
    """

    def __init__(self, job: Job, notify: Callable[[str], None]) -> None:
        self._job = job
        self._notify = notify
        self._next = -math.inf
        self._pause = _AGAIN
        self._message: Future[str] | None = None

    def cancel_if_due(self) -> None:
        """Cancel the job, unless that was done just now."""
        if time.monotonic() >= self._next:
            self._message = cancel_with_others(self._job)
            self._next = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _AGAIN_AT_MOST)

    def log(self) -> None:
        """Log the outcome of the last cancellation, once that is known."""
        if self._message is not None and self._message.done():
            self._notify(self._message.result())
            self._message = None


class _Batch:
    """Jobs of one cluster to cancel: those added during a command are cancelled together by the next one."""

    _all: ClassVar[dict[tuple[str, ...], _Batch]] = {}
    _lock = threading.Lock()

    def __init__(self) -> None:
        self._queue: list[tuple[Job | PendingJob, Future[str]]] = []
        self._is_at_work = False

    @classmethod
    def of(cls, cluster: JobBackend) -> _Batch:
        """Return the batch of this cluster and user in this process."""
        with cls._lock:
            return cls._all.setdefault(cluster.key, cls())

    def add(self, job: Job | PendingJob, message: Future[str], start: Callable[[Callable[[], None]], object]) -> None:
        """Add a marked job.

        :param start: starts a thread, if there is none.
        """
        with self._lock:
            self._queue.append((job, message))
            if not self._is_at_work:
                start(self._run)
                self._is_at_work = True

    def _run(self) -> None:
        while batch := self._next():
            jobs, messages = zip(*batch, strict=True)
            try:
                lines = _cancel_marked(jobs, TIMEOUT_TOGETHER)
            except Exception as error:  # after any error, no thread may wait for ever
                lines = [_failure_line(error)] * len(jobs)
            for message, line in zip(messages, lines, strict=True):
                message.set_result(line)

    def _next(self) -> list[tuple[Job | PendingJob, Future[str]]]:
        with self._lock:
            batch, self._queue = self._queue, []
            self._is_at_work = bool(batch)
            return batch


def _mark(directory: JobDirectory, *, is_cleared: bool = False) -> None:
    """Have the job script end, if that can be written; the cluster may still be reached if not."""
    with suppress(OSError):
        directory.write_cancelled(is_cleared=is_cleared)


def _cancel_marked(jobs: Sequence[Job | PendingJob], timeout: float) -> list[str]:
    """Cancel jobs whose job directories are marked, and return a log line about each."""
    pending = [job for job in jobs if isinstance(job, PendingJob)]
    for each in pending:
        withdraw(each)
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in [*(job for job in jobs if isinstance(job, Job)), *elements_of(pending)]:
        groups.setdefault(job.cluster.key, []).append(job)
    unreached: dict[str, str] = {}
    for group in groups.values():
        reasons = group[0].cluster.cancel([job.ref for job in group], timeout=timeout)
        unreached |= {ref.directory: reason for ref, reason in reasons.items()}
    return [_line(job, unreached.get(job.directory.path)) for job in jobs]


def _line(job: Job | PendingJob, unreached: str | None) -> str:
    if unreached is None:
        return f"Cancelled {job}"
    return WarningLine(
        f"Cancelled {job} through its job directory only; it ends within some seconds of running: {unreached}"
    )


def _failure_line(error: Exception) -> WarningLine:
    return WarningLine(f"Cancelling failed: {type(error).__name__}: {error}")


def _new_message() -> Future[str]:
    message: Future[str] = Future()
    message.set_running_or_notify_cancel()
    return message


def _start_daemon(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="sewer-canceller", daemon=True).start()
