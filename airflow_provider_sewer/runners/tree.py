"""Everything one command has started, down to what has detached itself, and how to end it.

Every process inherits a mark in its environment, so that a descendant is found even after it has left
its process group and its parents have died. (Jenkins finds the leftovers of a build in this way.)
A mark is a path of ids, ``run/`` or ``run/task/``: the tree of a run holds the trees of its tasks.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from airflow_provider_sewer.core.environment import ATTEMPT_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

_PAUSE = 0.05
_UNKILLABLE_AFTER = 10.0


def members(mark: str) -> list[psutil.Process]:
    """Return the living processes that carry a mark, their descendants, and their process groups."""
    living = [process for process in psutil.process_iter() if process.pid != os.getpid()]
    marked = [process for process in living if _carries(process, mark)]
    groups = {_group(process) for process in marked} - {None, _group(psutil.Process())}
    found = {process.pid: process for process in living if process in marked or _group(process) in groups}
    for process in marked:
        with suppress(psutil.Error):
            found |= {child.pid: child for child in process.children(recursive=True)}
    return [process for process in found.values() if _lives(process)]


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Send a signal to each process that is still there."""
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def end(mark: str, grace: float) -> None:
    """End everything that carries a mark: SIGTERM, then SIGKILL to what is left after the grace.

    Gives up on what survives SIGKILL (a process stuck in the kernel, or another user's).

    :param grace: seconds between the two.
    """
    kill_at = time.monotonic() + grace
    told: set[psutil.Process] = set()
    while (living := members(mark)) and (now := time.monotonic()) < kill_at + _UNKILLABLE_AFTER:
        if now >= kill_at:
            send(living, signal.SIGKILL)
        else:
            send(set(living) - told, signal.SIGTERM)
            told.update(living)
        psutil.wait_procs(living, timeout=_PAUSE)


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(ATTEMPT_ID, "").startswith(mark)
    except (psutil.Error, OSError):
        return False


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False
