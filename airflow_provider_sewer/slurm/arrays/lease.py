"""The right to do what only one of several processes may do, on whatever hosts; it ends by itself with its holder."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress

from airflow_provider_sewer.core.trusted_files import modified

_NAME = re.compile(r"(holder|free)-([0-9]{1,18})")


class LeaseLost(Exception):
    """Another process has taken it: this one was not heard of for too long."""


class Lease:
    """Belongs to the process whose file has the highest number in a folder, as long as that is touched.

    Nothing but the exclusive making of a file is asked of the file system, and of clocks only that they go: who waits
    measures by its own how long the holder's file stays untouched. Numbers only grow, so that a process which was
    stopped for long never takes another one's file for its own.

    :param folder: the folder, which is there.
    :param seconds: how long it lasts after it was touched.
    """

    def __init__(self, folder: str, seconds: float) -> None:
        self._folder = folder
        self._seconds = seconds
        self._own = 0
        self._kept = 0.0
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def take(self) -> bool:
        """Take it if nobody has it, and tell whether that was so."""
        files = self._files()
        highest = max((number for _, number in files), default=0)
        if ("holder", highest) in files and not self._has_ended(highest):
            return False
        try:
            os.close(os.open(self._path("holder", highest + 1), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:  # another one was quicker
            return False
        self._own, self._kept = highest + 1, time.monotonic()
        for word, number in files:
            with suppress(FileNotFoundError):
                os.unlink(self._path(word, number))
        return True

    def keep(self) -> None:
        """Make it last on.

        :raises LeaseLost: when it has ended.
        """
        now = time.monotonic()
        if now - self._kept > self._seconds or max(number for _, number in (*self._files(), ("", 0))) != self._own:
            raise LeaseLost
        try:
            os.utime(self._path("holder", self._own))
        except FileNotFoundError:
            raise LeaseLost from None
        self._kept = now

    def give_back(self) -> None:
        """Let another one have it."""
        with suppress(FileNotFoundError):  # it was lost
            os.rename(self._path("holder", self._own), self._path("free", self._own))

    def _has_ended(self, holder: int) -> bool:
        """Tell whether a holder has not touched its file for as long as this process has looked at it."""
        try:
            seen = (holder, modified(self._path("holder", holder)))
        except FileNotFoundError:
            return False  # it was given back just now
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since >= self._seconds

    def _files(self) -> list[tuple[str, int]]:
        found = map(_NAME.fullmatch, os.listdir(self._folder))
        return [(match.group(1), int(match.group(2))) for match in found if match]

    def _path(self, word: str, number: int) -> str:
        return os.path.join(self._folder, f"{word}-{number}")
