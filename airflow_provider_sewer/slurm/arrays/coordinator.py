"""What looks after all who wait in this process for the arrays of one mapped task."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_sewer.core.errors import SewerError, SlurmUnavailable, UnreadableRecord, UntrustedPath
from airflow_provider_sewer.slurm.arrays.lease import LeaseLost
from airflow_provider_sewer.slurm.arrays.planner import ArrayPlanner
from airflow_provider_sewer.slurm.backend import CommandNotFound, SlurmUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob
    from airflow_provider_sewer.slurm.client import SlurmClient
    from airflow_provider_sewer.slurm.job import Job

#: Seconds between two looks at who has come.
_PAUSE = 1.0

_log = logging.getLogger(__name__)


class PendingMember:
    """One attempt that waits for its array, until :meth:`close`.

    :param on_news: told, in the gatherer's thread, in words what goes on, and once the job, or why there is none; must
        neither block nor raise.
    """

    def __init__(
        self, gatherer: ArrayCoordinator, path: str, on_news: Callable[[str | Job | SewerError], None]
    ) -> None:
        self._gatherer = gatherer
        self.path = path
        self.on_news = on_news

    def close(self) -> None:
        """End it."""
        self._gatherer._remove(self)


class ArrayCoordinator:
    """A thread that looks at the arrays of a mapped task while somebody waits; :meth:`of` returns the one to use."""

    _all: ClassVar[dict[tuple[str, ...], ArrayCoordinator]] = {}
    _lock = threading.Lock()

    def __init__(self, cluster: SlurmClient, folder: str) -> None:
        self._cluster = cluster
        self._folder = folder
        self._key = (*cluster.key, folder)
        self._guard = threading.Lock()
        self._waits: list[PendingMember] = []
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, waiting: PendingJob) -> ArrayCoordinator:
        """Return the one of this process for the mapped task of an attempt that waits."""
        with cls._lock:
            one = cls(waiting.cluster, waiting.folder)
            return cls._all.setdefault(one._key, one)

    def wait(self, path: str, on_news: Callable[[str | Job | SewerError], None]) -> PendingMember:
        """Begin to wait for the array of an attempt, and to look after it.

        :param path: its run directory.
        :param on_news: see :class:`Wait`.
        """
        wait = PendingMember(self, path, on_news)
        with self._guard:
            self._waits.append(wait)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sewer-gatherer", daemon=True)
                self._thread.start()
        return wait

    def _remove(self, wait: PendingMember) -> None:
        with self._guard:
            if wait in self._waits:
                self._waits.remove(wait)

    def _run(self) -> None:
        gathering = ArrayPlanner(self._folder, self._cluster)
        while self._next():
            try:
                self._look(gathering)
            except LeaseLost:
                _log.warning("Another process has taken over the arrays in %s", self._folder)
            except CommandNotFound as error:
                self._give_up(SlurmUnavailable(f"the array cannot be submitted: {error}"))
            except SlurmUnreachable as error:
                self._say(f"The array is not submitted yet, trying again: {error}")
            except (UntrustedPath, UnreadableRecord) as error:
                self._give_up(error)
            except OSError as error:
                self._give_up(SlurmUnavailable(f"run_dir: cannot use {self._folder!r}: {error.strerror}"))
            except Exception as error:  # whatever it is, nobody must wait for ever
                _log.exception("Looking at the arrays in %s went wrong", self._folder)
                self._give_up(SlurmUnavailable(f"the array cannot be submitted: {type(error).__name__}: {error}"))

    def _look(self, gathering: ArrayPlanner) -> None:
        gathering.poll()
        self._tell(gathering)
        if self._waits and gathering.is_due():
            for _ in gathering.send(self._say):
                self._tell(gathering)

    def _next(self) -> bool:
        """Wait for the next look, and tell whether anybody still waits."""
        time.sleep(_PAUSE)
        with ArrayCoordinator._lock, self._guard:
            if not self._waits:
                self._thread = None
                ArrayCoordinator._all.pop(self._key, None)
            return bool(self._waits)

    def _tell(self, gathering: ArrayPlanner) -> None:
        for wait in list(self._waits):
            if (outcome := gathering.outcome(wait.path)) is not None:
                wait.on_news(outcome)
                self._remove(wait)

    def _say(self, line: str) -> None:
        for wait in list(self._waits):
            wait.on_news(line)

    def _give_up(self, error: SewerError) -> None:
        for wait in list(self._waits):
            wait.on_news(error)
            self._remove(wait)

    @classmethod
    def _after_fork(cls) -> None:
        """Leave to the parent what is the parent's: its threads are not here, and its locks may be held for ever."""
        cls._lock = threading.Lock()
        cls._all.clear()


os.register_at_fork(after_in_child=ArrayCoordinator._after_fork)
