"""Lease that one of several processes holds, on any hosts; it ends by itself with its holder."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress

from airflow_provider_sewer.core.trusted_files import modified

_NAME = re.compile(r"(holder|free)-([0-9]{1,18})")


class LeaseLost(Exception):
    """Another process has taken the lease: this one has not touched it for too long."""


class Lease:
    """Lease of the process whose file has the highest number in a folder, as long as that file is touched.

    The file system need only support exclusive creation, and clocks need not agree: a waiting process measures by its
    own clock how long the holder's file stays untouched. Numbers only grow, so that a process which was stopped for
    long never mistakes another one's file for its own.

    :param folder: the folder, which exists.
    :param seconds: how long it lasts after it was touched.
    """

    def __init__(self, folder: str, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._own = 0
        self._touched = 0.0
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def take(self) -> bool:
        """Take the lease if it is free, and return whether it was."""
        files = self._files()
        highest = max((number for _, number in files), default=0)
        if ("holder", highest) in files and not self._has_ended(highest):
            return False
        try:
            os.close(os.open(self._path("holder", highest + 1), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:  # another process was quicker
            return False
        self._own, self._touched = highest + 1, time.monotonic()
        for word, number in files:
            with suppress(FileNotFoundError):
                os.unlink(self._path(word, number))
        return True

    def keep(self) -> None:
        """Extend the lease.

        :raises LeaseLost: when it has ended.
        """
        now = time.monotonic()
        if now - self._touched > self._seconds or max(number for _, number in (*self._files(), ("", 0))) != self._own:
            raise LeaseLost
        try:
            os.utime(self._path("holder", self._own))
        except FileNotFoundError:
            raise LeaseLost from None
        self._touched = now

    def release(self) -> None:
        """Release the lease."""
        with suppress(FileNotFoundError):  # it was lost
            os.rename(self._path("holder", self._own), self._path("free", self._own))

    def _has_ended(self, holder: int) -> bool:
        """Return whether a holder has not touched its file for as long as this process has observed it."""
        try:
            seen = (holder, modified(self._path("holder", holder)))
        except FileNotFoundError:
            return False  # it was released just now
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since >= self._seconds

    def _files(self) -> list[tuple[str, int]]:
        found = map(_NAME.fullmatch, os.listdir(self._folder))
        return [(match.group(1), int(match.group(2))) for match in found if match]

    def _path(self, word: str, number: int) -> str:
        return os.path.join(self._folder, f"{word}-{number}")
