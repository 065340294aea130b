"""Trigger that waits for a path."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_sewer.core.formats import PATH_EVENT, PATH_TRIGGER, VERSION_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Class path stored in Airflow's database; it stays even if the class moves.
_PATH = "airflow_provider_sewer.triggers.path.PathTrigger"


class PathTrigger(BaseTrigger):
    """Trigger that fires when a file or directory exists, or at the deadline.

    :param path: its absolute path, as the triggerer sees it.
    :param interval: seconds between two checks.
    :param deadline: end of the wait, in seconds since the epoch. Airflow has its own timeout for deferred tasks, which
        ``dag.test()`` does not enforce.
    :param stored: the version of these arguments, and arguments of another version.
    """

    def __init__(self, path: str, interval: float, deadline: float, **stored: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._format = stored.get(VERSION_KEY, PATH_TRIGGER.version)
        self._path = path
        self._interval = interval
        self._deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments for the triggerer."""
        arguments = {"path": self._path, "interval": self._interval, "deadline": self._deadline}
        return _PATH, {**PATH_TRIGGER.written(arguments), VERSION_KEY: self._format}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Check until the path exists, in a thread, so that a hanging file server does not block other triggers."""
        PATH_TRIGGER.read(f"the arguments of {_PATH}", self.serialize()[1])
        is_there, left = False, self._deadline - time.time()
        while not is_there and left > 0:
            # Also before the first check: a worker has just checked, and Airflow fails a task that is queued again
            # before it has noticed that the worker is done.
            await asyncio.sleep(min(self._interval, left))
            is_there = await asyncio.to_thread(os.path.exists, self._path)
            left = self._deadline - time.time()
        yield TriggerEvent(PATH_EVENT.written({"path": self._path, "is_there": is_there}))  # type: ignore[no-untyped-call]
