"""Everything one command has started, down to what has detached itself, and how to end it.

Every process inherits a mark in its environment, so that a descendant is found even after it has left
its session and its parents have died. (Jenkins finds the leftovers of a build in this way.) What has
overwritten its environment is found by its session and its parents. Out of reach is only what has done
all three, left its session, outlived its parent and forgotten its environment; and what forks itself
into one new session after the other, faster than anybody can look.
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
    """The end of a tree, step by step: SIGTERM to each process, SIGKILL to what is left after the grace.

    :param mark: what its processes carry in their environment.
    :param grace: seconds between the two signals.
    :param roots: pids of its members that lead a session of their own.
    """

    def __init__(self, mark: str, grace: float, roots: Collection[int] = ()) -> None:
        self._mark = mark
        self._kill_at = time.monotonic() + grace
        self._sessions = set(roots)
        self._known: set[psutil.Process] = set()
        self._asked: set[psutil.Process] = set()

    def step(self, *, at_once: bool = False) -> bool:
        """Send the signals that are due, and tell whether anything is left to be ended.

        Gives up on what survives SIGKILL (a process stuck in the kernel, or another user's).

        :param at_once: cut the grace short.
        """
        now = time.monotonic()
        if at_once:
            self._kill_at = min(self._kill_at, now)
        living = self._living()
        if now >= self._kill_at:
            _kill(living)
        else:
            _ask(living - self._asked)
            self._asked |= living
        return bool(living) and now < self._kill_at + _GIVE_UP

    def run(self) -> None:
        """Take all steps."""
        while self.step():
            time.sleep(_PAUSE)

    def _living(self) -> set[psutil.Process]:
        """Return the living members: those marked, those known from before, their sessions and descendants."""
        everyone = _everyone()
        members = {process for process in everyone.values() if process in self._known or _carries(process, self._mark)}
        strangers = set(everyone.values()) - members
        sessions = self._sessions | _sessions(members)
        while more := {
            one for one in strangers if _session(one) in sessions or everyone.get(_parent(one) or 0) in members
        }:
            members |= more
            strangers -= more
            sessions |= _sessions(more)
        self._known = {process for process in members if _lives(process)}
        self._sessions = _sessions(self._known)
        return self._known


def _everyone() -> dict[int, psutil.Process]:
    """Return all processes but those of this one's session, which no tree is ever part of."""
    own = os.getsid(0)
    everyone = {}
    for pid in psutil.pids():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if _session(process) != own:
                everyone[pid] = process
    return everyone


def _ask(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        # The whole group, because what is forked just now is not yet known but already part of it.
        with suppress(OSError):
            os.killpg(os.getpgid(process.pid), signal.SIGKILL)
        with suppress(psutil.Error):
            process.kill()


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(ATTEMPT_ID, "").startswith(mark)
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
