"""Lease of the one process that monitors a job.

The holder forwards the job's output. A process that was paused, and whose job another process monitors by now, finds
that it is no longer the holder. The job script reads from the same file whether any process still monitors the job.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.trusted_files import modified
from airflow_provider_sewer.slurm.job_records import Monitor

if TYPE_CHECKING:
    from airflow_provider_sewer.slurm.job_directory import JobDirectory

#: Seconds between two touches by the holder, and without a touch after which a holder is considered dead.
_TOUCH_EVERY, _DEAD_AFTER = 30.0, 120.0


class MonitorLease:
    """Right of this process to monitor a job, in the file ``monitor.json`` of the job directory.

    Only the exclusive content of the file counts, and no clock of another host: a process measures by its own clock
    for how long the holder's file stays unchanged.

    :param directory: the job directory.
    :param try_number: Airflow's number of the try that this process works for; a lower one never takes the lease from a
        higher one. 0 where tries have no numbers.
    :param touch_every: seconds between two touches of the file by the holder.
    :param dead_after: seconds without a touch after which another process may take the lease.
    """

    def __init__(
        self,
        directory: JobDirectory,
        try_number: int = 0,
        *,
        touch_every: float = _TOUCH_EVERY,
        dead_after: float = _DEAD_AFTER,
    ) -> None:
        self._directory = directory
        self._try_number = try_number
        self._touch_every = touch_every
        self._dead_after = dead_after
        self._token = uuid.uuid4().hex
        self._touched = 0.0
        self._seen: tuple[Monitor | None, int] = (None, 0)
        self._since = time.monotonic()

    def take(self) -> None:
        """Take the lease from any other process, but for a live one of a later try."""
        age = time.time() - _modified(self._directory.monitor) / 1e9
        if self._is_of_a_later_try(self._directory.read_monitor()) and age < self._dead_after:
            return
        self._write()

    def keep(self) -> bool:
        """Touch the file when that is due, and return whether this process holds the lease.

        A holder that has not touched the file for ``dead_after`` seconds loses the lease to this process.
        """
        holder = self._directory.read_monitor()
        if holder is None or holder.token == self._token:
            self._touch()
            return True
        seen = (holder, _modified(self._directory.monitor))
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        if time.monotonic() - self._since < self._dead_after:
            return False
        self._write()
        return True

    def _write(self) -> None:
        with suppress(OSError):  # a job directory that is full or gone: the monitor finds the state of the job
            self._directory.write_monitor(Monitor(self._token, self._try_number))
        self._touched = time.monotonic()

    def _is_of_a_later_try(self, holder: Monitor | None) -> bool:
        return holder is not None and 0 < self._try_number < holder.try_number

    def _touch(self) -> None:
        if time.monotonic() - self._touched >= self._touch_every:
            try:
                os.utime(self._directory.monitor)
            except FileNotFoundError:
                self.take()
            except OSError:  # the file server is unreachable; the lease outlives that
                return
            self._touched = time.monotonic()


def _modified(path: str) -> int:
    try:
        return modified(path)
    except OSError:
        return 0
