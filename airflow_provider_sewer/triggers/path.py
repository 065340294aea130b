"""Wait for a path in the triggerer."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_sewer.core.formats import PATH_EVENT, PATH_TRIGGER, VERSION_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Where Airflow finds the class for what is in its database: it stays, wherever the class is.
_PATH = "airflow_provider_sewer.triggers.path.PathTrigger"


class PathTrigger(BaseTrigger):
    """Fires when a file or directory is there, or has not come in time.

    :param path: its absolute path, as the triggerer sees it.
    :param interval: seconds between two looks.
    :param deadline: when to wait no longer, in seconds since the epoch. Airflow has a timeout of its own for what is
        deferred, but nobody holds to it under ``dag.test()``.
    :param stored: the version of these arguments, and those of another version.
    """

    def __init__(self, path: str, interval: float, deadline: float, **stored: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._format = stored.get(VERSION_KEY, PATH_TRIGGER.version)
        self._path = path
        self._interval = interval
        self._deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Write it down for the triggerer."""
        arguments = {"path": self._path, "interval": self._interval, "deadline": self._deadline}
        return _PATH, {**PATH_TRIGGER.written(arguments), VERSION_KEY: self._format}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is there. A file server that does not answer holds up nobody else."""
        PATH_TRIGGER.read(f"the arguments of {_PATH}", self.serialize()[1])
        is_there, left = False, self._deadline - time.time()
        while not is_there and left > 0:
            # First of all as well: a worker has just looked, and Airflow takes a task for failed that is queued again
            # before it has noticed that the worker is done.
            await asyncio.sleep(min(self._interval, left))
            is_there = await asyncio.to_thread(os.path.exists, self._path)
            left = self._deadline - time.time()
        yield TriggerEvent(PATH_EVENT.written({"path": self._path, "is_there": is_there}))  # type: ignore[no-untyped-call]
