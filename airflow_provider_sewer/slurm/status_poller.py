"""Look after all jobs of a process with one query at a time.

However many jobs there are, the cluster is asked once an interval. The interval grows while nothing
changes, and begins anew when something does or a job comes in.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.slurm.backend import SlurmUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.backend import JobBackend, JobRef, JobStatus

_GROWTH = 1.5

_log = logging.getLogger(__name__)


class StatusUpdate(NamedTuple):
    """What one look at a job brought.

    :param sighting: what is known of it; ``None`` where there was no answer.
    :param silence: why there was none.
    """

    status: JobStatus | None
    silence: str = ""


class Subscription:
    """One job under a watcher's eye, until :meth:`close`.

    :param on_view: told each view, in the watcher's thread; must neither block nor raise.
    """

    def __init__(
        self,
        watcher: StatusPoller,
        job: JobRef,
        on_update: Callable[[StatusUpdate], None],
        shortest: float,
        longest: float,
    ) -> None:
        self._watcher = watcher
        self.job = job
        self.on_update = on_update
        self.shortest = shortest
        self.longest = longest
        self.last: JobStatus | None = None

    def poll_now(self) -> None:
        """Have the next look soon: there is reason to think that something has changed."""
        self._watcher._wake()

    def close(self) -> None:
        """End it."""
        self._watcher._remove(self)


class StatusPoller:
    """Asks one cluster about all jobs that are watched in this process; :meth:`of` returns the one to use."""

    _all: dict[tuple[str, ...], StatusPoller] = {}  # noqa: RUF012 - one for all
    _lock = threading.Lock()

    _watches: list[Subscription]
    _thread: threading.Thread | None

    def __init__(self, cluster: JobBackend) -> None:
        self._cluster = cluster
        self._last_look = -math.inf  # when it was over: one that takes long is not followed at once by another
        self._reset()

    @classmethod
    def of(cls, cluster: JobBackend) -> StatusPoller:
        """Return the watcher of this cluster and user in this process."""
        with cls._lock:
            if cluster.key not in cls._all:
                cls._all[cluster.key] = cls(cluster)
            return cls._all[cluster.key]

    def subscribe(
        self, job: JobRef, on_view: Callable[[StatusUpdate], None], *, shortest: float, longest: float
    ) -> Subscription:
        """Begin to watch a job.

        :param on_view: told each view, in the watcher's thread; must neither block nor raise.
        :param shortest: seconds between two looks while things change.
        :param longest: seconds between two looks while nothing does.
        """
        watch = Subscription(self, job, on_view, shortest, max(shortest, longest))
        with self._changed:
            self._watches.append(watch)
        self._wake()
        return watch

    def _remove(self, watch: Subscription) -> None:
        with self._changed:
            if watch in self._watches:
                self._watches.remove(watch)
            self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            self._is_hurried = True
            self._changed.notify()
            if self._watches and not (self._thread and self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="sewer-watcher", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        interval = 0.0
        while watches := self._next(interval):
            shortest = min(watch.shortest for watch in watches)
            longest = min(watch.longest for watch in watches)
            has_changed = self._poll(watches)
            interval = shortest if has_changed else min(max(interval, shortest) * _GROWTH, longest)

    def _next(self, interval: float) -> list[Subscription]:
        """Wait for the next look, and return the jobs to look at; none ends the watcher.

        However much it is hurried, the shortest interval lies between two looks.
        """
        with self._changed:
            while self._watches:
                shortest = min(watch.shortest for watch in self._watches)
                pause = shortest if self._is_hurried else max(interval, shortest)
                left = self._last_look + pause - time.monotonic()
                if left <= 0:
                    self._is_hurried = False
                    return list(self._watches)
                self._changed.wait(left)
            self._thread = None
            return []

    def _poll(self, watches: list[Subscription]) -> bool:
        """Look at the jobs, tell each its view, and return whether something has changed."""
        try:
            sightings = self._cluster.poll([watch.job for watch in watches])
            silence = "accounting does not answer, and the controller has forgotten the job"
        except SlurmUnreachable as error:
            sightings, silence = {}, str(error)
        except Exception as error:  # whatever it is, the jobs must not go unwatched
            _log.exception("Looking at the jobs of %s went wrong", self._cluster.key)
            sightings, silence = {}, f"{type(error).__name__}: {error}"
        self._last_look = time.monotonic()
        has_changed = False
        for watch in watches:
            sighting = sightings.get(watch.job)
            if sighting is not None and sighting != watch.last:
                has_changed = True
                watch.last = sighting
            try:
                watch.on_update(StatusUpdate(sighting, "" if sighting else silence))
            except Exception:  # that of another job must not keep these from being told
                _log.exception("Nobody was told how job %s stands", watch.job.id)
        return has_changed

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._watches = []
        self._thread = None
        self._is_hurried = False

    @classmethod
    def _after_fork(cls) -> None:
        """Leave to the parent what is the parent's: its threads are not here, and its locks may be held for ever."""
        cls._lock = threading.Lock()
        for watcher in cls._all.values():
            watcher._reset()


os.register_at_fork(after_in_child=StatusPoller._after_fork)
