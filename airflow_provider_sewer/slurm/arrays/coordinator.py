"""Coordinator of all attempts in this process that wait for the arrays of one mapped task."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_sewer.core.errors import SewerError, SlurmUnavailable, UnreadableRecord, UntrustedPath
from airflow_provider_sewer.execution.job_messages import WarningLine
from airflow_provider_sewer.slurm.arrays.array_folder import ArrayFolder
from airflow_provider_sewer.slurm.arrays.array_lease import LeaseLost
from airflow_provider_sewer.slurm.arrays.array_planner import ArrayPlanner
from airflow_provider_sewer.slurm.arrays.job_array import folder_of
from airflow_provider_sewer.slurm.backend import CommandNotFound, SlurmUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.client import SlurmClient
    from airflow_provider_sewer.slurm.job import Job, PendingJob

#: Seconds between two checks for new members.
_PAUSE = 1.0

_log = logging.getLogger(__name__)


class PendingMember:
    """Attempt that waits for its array, until :meth:`close`.

    :param on_news: called in the coordinator's thread with log lines, and once with the job, or the error; must neither
        block nor raise.
    """

    def __init__(
        self, coordinator: ArrayCoordinator, path: str, on_news: Callable[[str | Job | SewerError], None]
    ) -> None:
        self._coordinator = coordinator
        self.path = path
        self.on_news = on_news

    def close(self) -> None:
        """End the wait."""
        self._coordinator._remove(self)


class ArrayCoordinator:
    """Thread that forms and submits the arrays of a mapped task while attempts wait; :meth:`of` returns it."""

    _all: ClassVar[dict[tuple[str, ...], ArrayCoordinator]] = {}
    _lock = threading.Lock()

    def __init__(self, cluster: SlurmClient, folder: str) -> None:
        self._cluster = cluster
        self._folder = folder
        self._key = (*cluster.key, folder)
        self._guard = threading.Lock()
        self._members: list[PendingMember] = []
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, waiting: PendingJob) -> ArrayCoordinator:
        """Return the coordinator of this process for the mapped task of a waiting attempt."""
        with cls._lock:
            one = cls(waiting.cluster, folder_of(waiting.directory.path))
            return cls._all.setdefault(one._key, one)

    def wait(self, path: str, on_news: Callable[[str | Job | SewerError], None]) -> PendingMember:
        """Begin to wait for the array of an attempt, and take part in its submission.

        :param path: its job directory.
        :param on_news: see :class:`PendingMember`.
        """
        member = PendingMember(self, path, on_news)
        with self._guard:
            self._members.append(member)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sewer-array-coordinator", daemon=True)
                self._thread.start()
        return member

    def _remove(self, member: PendingMember) -> None:
        with self._guard:
            if member in self._members:
                self._members.remove(member)

    def _run(self) -> None:
        folder = ArrayFolder(self._folder, self._cluster)
        planner = ArrayPlanner(folder, self._cluster)
        while self._next():
            try:
                self._poll(folder, planner)
            except LeaseLost:
                _log.warning("Lost the lease of the arrays in %s to another process", self._folder)
            except CommandNotFound as error:
                self._give_up(SlurmUnavailable(f"the array cannot be submitted: {error}"))
            except SlurmUnreachable as error:
                self._notify(WarningLine(f"Array not submitted yet, trying again until Slurm answers: {error}"))
            except (UntrustedPath, UnreadableRecord) as error:
                self._give_up(error)
            except OSError as error:
                self._give_up(SlurmUnavailable(f"run_dir: cannot use {self._folder!r}: {error.strerror}"))
            except Exception as error:  # after any error, no attempt may wait for ever
                _log.exception("Cannot poll the arrays in %s", self._folder)
                self._give_up(SlurmUnavailable(f"the array cannot be submitted: {type(error).__name__}: {error}"))

    def _poll(self, folder: ArrayFolder, planner: ArrayPlanner) -> None:
        folder.poll()
        self._deliver(folder)
        if self._members and planner.is_due():
            for _ in planner.submit_due(self._notify):
                self._deliver(folder)

    def _next(self) -> bool:
        """Wait for the next poll, and return whether any attempt still waits."""
        time.sleep(_PAUSE)
        with ArrayCoordinator._lock, self._guard:
            if not self._members:
                self._thread = None
                ArrayCoordinator._all.pop(self._key, None)
            return bool(self._members)

    def _deliver(self, folder: ArrayFolder) -> None:
        for member in list(self._members):
            if (outcome := folder.outcome(member.path)) is not None:
                member.on_news(outcome)
                self._remove(member)

    def _notify(self, line: str) -> None:
        for member in list(self._members):
            member.on_news(line)

    def _give_up(self, error: SewerError) -> None:
        for member in list(self._members):
            member.on_news(error)
            self._remove(member)

    @classmethod
    def _after_fork(cls) -> None:
        """Reset the state in the child: the parent's threads are not here, and its locks may be held for ever."""
        cls._lock = threading.Lock()
        cls._all.clear()


os.register_at_fork(after_in_child=ArrayCoordinator._after_fork)
