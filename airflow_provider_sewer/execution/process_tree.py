"""Termination of the process tree of a command, including detached processes.

Every process inherits a tag in its environment, so that a descendant is found even after it has left its session and
its parents have died. (Jenkins finds the leftovers of a build in this way.) A process that has overwritten its
environment is found by its session and its parents. Only two kinds are out of reach: a process that has left its
session, outlived its parent and overwritten its environment; and one that keeps forking into new sessions faster than
the process list can be read.
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
    from collections.abc import Collection, Iterable

_PAUSE = 0.05
_GIVE_UP = 10.0


class TreeTerminator:
    """Terminator of a tree, in steps: SIGTERM to each process, SIGKILL to those left after the grace.

    :param tag: the tag in the environment of its processes.
    :param grace: seconds between the two signals.
    :param roots: pids of its members that are session leaders.
    """

    def __init__(self, tag: str, grace: float, roots: Collection[int] = ()) -> None:
        self._tag = tag
        self._kill_at = time.monotonic() + grace
        self._sessions = set(roots)
        self._known: set[psutil.Process] = set()
        self._terminated: set[psutil.Process] = set()

    def step(self, *, at_once: bool = False) -> bool:
        """Send the signals that are due, and return whether any process is left.

        Gives up on processes that survive SIGKILL (stuck in the kernel, or another user's).

        :param at_once: end the grace now.
        """
        now = time.monotonic()
        if at_once:
            self._kill_at = min(self._kill_at, now)
        living = self._living()
        if now >= self._kill_at:
            _kill(living)
        else:
            _terminate(living - self._terminated)
            self._terminated |= living
        return bool(living) and now < self._kill_at + _GIVE_UP

    def run(self) -> None:
        """Perform all steps."""
        while self.step():
            time.sleep(_PAUSE)

    def _living(self) -> set[psutil.Process]:
        """Return the living members: those with the tag, those known already, their sessions and descendants."""
        processes = _all_processes()
        members = {process for process in processes.values() if process in self._known or _carries(process, self._tag)}
        others = set(processes.values()) - members
        sessions = self._sessions | _sessions(members)
        while more := {
            one for one in others if _session(one) in sessions or processes.get(_parent(one) or 0) in members
        }:
            members |= more
            others -= more
            sessions |= _sessions(more)
        self._known = {process for process in members if _lives(process)}
        self._sessions = _sessions(self._known)
        return self._known


def _all_processes() -> dict[int, psutil.Process]:
    """Return all processes except those of this one's session, which is never part of a tree."""
    own = os.getsid(0)
    processes = {}
    for pid in psutil.pids():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if _session(process) != own:
                processes[pid] = process
    return processes


def _terminate(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        # The whole group, because a process forked just now is not yet known but already part of it.
        with suppress(OSError):
            os.killpg(os.getpgid(process.pid), signal.SIGKILL)
        with suppress(psutil.Error):
            process.kill()


def _carries(process: psutil.Process, tag: str) -> bool:
    try:
        return process.environ().get(ATTEMPT_ID, "").startswith(tag)
    except (psutil.Error, OSError):
        return False


def _sessions(processes: Iterable[psutil.Process]) -> set[int]:
    return {session for process in processes if (session := _session(process)) is not None}


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.Error:
        return False
