"""Poller of the status of all jobs of a process, with one query at a time.

The cluster is queried once per interval for any number of jobs. The interval grows while nothing changes, and starts
again at its shortest after a change or a new job.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from queue import Empty
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.slurm.backend import SlurmUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from queue import SimpleQueue

    from airflow_provider_sewer.core.slurm_settings import SlurmSettings
    from airflow_provider_sewer.slurm.backend import JobBackend, JobRef, JobStatus
    from airflow_provider_sewer.slurm.job import Job

#: Factor by which the pauses between polls grow.
_GROWTH = 1.5
#: Seconds between two polls of the files of a job, at first.
_FIRST_PAUSE = 0.2
#: Seconds between two polls of the processes of this machine, which cost little.
_LOCAL_INTERVAL = 1.0

_log = logging.getLogger(__name__)


class StatusUpdate(NamedTuple):
    """Result of one status query for a job.

    :param status: its status; ``None`` where there was no answer.
    :param silence: the reason for a missing answer.
    """

    status: JobStatus | None
    silence: str = ""


class Subscription:
    """Subscription to status updates of one job, until :meth:`close`.

    :param on_update: called with each update, in the poller's thread; must neither block nor raise.
    """

    def __init__(
        self,
        poller: StatusPoller,
        job: JobRef,
        on_update: Callable[[StatusUpdate], None],
        shortest: float,
        longest: float,
    ) -> None:
        self._poller = poller
        self.job = job
        self.on_update = on_update
        self.shortest = shortest
        self.longest = longest
        self.last: JobStatus | None = None

    def poll_now(self) -> None:
        """Have the job polled soon: it has probably changed."""
        self._poller._wake()

    def close(self) -> None:
        """End the subscription."""
        self._poller._remove(self)


class StatusPoller:
    """Polls one cluster for all jobs with a subscription in this process; :meth:`of` returns the shared instance."""

    _all: dict[tuple[str, ...], StatusPoller] = {}  # noqa: RUF012 - one for all
    _lock = threading.Lock()

    _subscriptions: list[Subscription]
    _thread: threading.Thread | None

    def __init__(self, cluster: JobBackend) -> None:
        self._cluster = cluster
        self._last_poll = -math.inf  # its end: a long query is not followed by another at once
        self._reset()

    @classmethod
    def of(cls, cluster: JobBackend) -> StatusPoller:
        """Return the poller of this cluster and user in this process."""
        with cls._lock:
            if cluster.key not in cls._all:
                cls._all[cluster.key] = cls(cluster)
            return cls._all[cluster.key]

    def subscribe(
        self, job: JobRef, on_update: Callable[[StatusUpdate], None], *, shortest: float, longest: float
    ) -> Subscription:
        """Subscribe to status updates of a job.

        :param on_update: called with each update, in the poller's thread; must neither block nor raise.
        :param shortest: seconds between two polls while the status changes.
        :param longest: seconds between two polls while it does not.
        """
        subscription = Subscription(self, job, on_update, shortest, max(shortest, longest))
        with self._changed:
            self._subscriptions.append(subscription)
        self._wake()
        return subscription

    def _remove(self, subscription: Subscription) -> None:
        with self._changed:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            self._is_poll_requested = True
            self._changed.notify()
            if self._subscriptions and not (self._thread and self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="sewer-status-poller", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        interval = 0.0
        while subscriptions := self._next(interval):
            shortest = min(each.shortest for each in subscriptions)
            longest = min(each.longest for each in subscriptions)
            has_changed = self._poll(subscriptions)
            interval = shortest if has_changed else min(max(interval, shortest) * _GROWTH, longest)

    def _next(self, interval: float) -> list[Subscription]:
        """Wait for the next poll, and return its subscriptions; an empty list ends the poller.

        Two polls are at least the shortest interval apart, also after requests for an early one.
        """
        with self._changed:
            while self._subscriptions:
                shortest = min(each.shortest for each in self._subscriptions)
                pause = shortest if self._is_poll_requested else max(interval, shortest)
                left = self._last_poll + pause - time.monotonic()
                if left <= 0:
                    self._is_poll_requested = False
                    return list(self._subscriptions)
                self._changed.wait(left)
            self._thread = None
            return []

    def _poll(self, subscriptions: list[Subscription]) -> bool:
        """Poll the jobs, send each subscription its update, and return whether a status has changed."""
        try:
            statuses = self._cluster.poll([each.job for each in subscriptions])
            silence = "accounting does not answer, and the controller has forgotten the job"
        except SlurmUnreachable as error:
            statuses, silence = {}, str(error)
        except Exception as error:  # after any error, the jobs must stay monitored
            _log.exception("Cannot poll the jobs of %s", self._cluster.key)
            statuses, silence = {}, f"{type(error).__name__}: {error}"
        self._last_poll = time.monotonic()
        has_changed = False
        for subscription in subscriptions:
            status = statuses.get(subscription.job)
            if status is not None and status != subscription.last:
                has_changed = True
                subscription.last = status
            try:
                subscription.on_update(StatusUpdate(status, "" if status else silence))
            except Exception:  # an error of one subscriber must not affect the others
                _log.exception("Cannot deliver the status of job %s", subscription.job.id)
        return has_changed

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._subscriptions = []
        self._thread = None
        self._is_poll_requested = False

    @classmethod
    def _after_fork(cls) -> None:
        """Reset the state in the child: the parent's threads are not here, and its locks may be held for ever."""
        cls._lock = threading.Lock()
        for poller in cls._all.values():
            poller._reset()


os.register_at_fork(after_in_child=StatusPoller._after_fork)


def subscribe(job: Job, on_update: Callable[[StatusUpdate], None], slurm: SlurmSettings) -> Subscription:
    """Subscribe to a job at the poller of its cluster, with the intervals of the settings.

    :param on_update: called with each update that differs from the last one, in the poller's thread.
    """
    shortest, longest = slurm.poll_interval or 0.0, slurm.max_poll_interval or 0.0
    if job.cluster.kind == "local":
        shortest = longest = min(shortest, _LOCAL_INTERVAL)
    last: list[StatusUpdate] = []

    def notify(update: StatusUpdate) -> None:
        if last != [update]:
            last[:] = [update]
            on_update(update)

    return StatusPoller.of(job.cluster).subscribe(job.ref, notify, shortest=shortest, longest=longest)


def latest_update(news: SimpleQueue[StatusUpdate | None], timeout: float) -> StatusUpdate | None:
    """Wait for an update, or for ``None``, which only ends the wait, and return the latest update."""
    try:
        update = news.get(timeout=timeout)
        while True:
            update = (news.get_nowait() or update) if not news.empty() else update
            if news.empty():
                return update
    except Empty:
        return None


class Backoff:
    """Pauses between two polls of the files of a job, which grow.

    :param longest: seconds.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._pause = _FIRST_PAUSE

    def next(self, *, has_news: bool) -> float:
        """Return the seconds until the next poll.

        :param has_news: whether the last one gave a new status.
        """
        pause = self._pause = min(_FIRST_PAUSE if has_news else self._pause * _GROWTH, self._longest)
        return pause
