"""Wait for a path in the triggerer."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class PathTrigger(BaseTrigger):
    """Fires when a file or directory is there.

    :param path: its absolute path, as the triggerer sees it.
    :param interval: seconds between two looks.
    """

    def __init__(self, path: str, interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._path = path
        self._interval = interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Write it down for the triggerer."""
        return f"{__name__}.{type(self).__name__}", {"path": self._path, "interval": self._interval}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is there. A file server that does not answer holds up nobody else."""
        while not await asyncio.to_thread(os.path.exists, self._path):  # noqa: ASYNC110 - no event tells of a path
            await asyncio.sleep(self._interval)
        yield TriggerEvent({"path": self._path})  # type: ignore[no-untyped-call]
