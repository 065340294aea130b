"""Follow a command that has started: hand on its output, end its tree when asked to, learn how it ended."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.execution.output import LineSplitter, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.execution.output import Sink
    from airflow_provider_sewer.execution.process import Process
    from airflow_provider_sewer.execution.process_tree import TreeTerminator
    from airflow_provider_sewer.execution.spawn import Child

_CHUNK = 64 * 1024
#: Seconds that whoever still holds the output of a command gets to close it, once the command has ended.
_LINGER = 2.0
#: Seconds between two looks at a tree that is being ended, and at a process whose end nobody announces.
_LOOK = 0.05
_POLL = 0.02
#: The longest wait, in seconds: Python sees a signal that comes just before a wait only after it.
LONGEST_WAIT = 1.0


class Exit(NamedTuple):
    """How a command ended.

    :param code: its exit code; ``None`` if a signal ended it, or if the code could not be learnt.
    :param signal: the number of that signal.
    :param stopped: whether it was ended on request.
    :param leftovers: whether it had left processes behind that held its output and had to be ended.
    """

    code: int | None
    signal: int | None
    stopped: bool
    leftovers: bool


class ProcessFollower:
    """The loop behind :meth:`Process.follow`, and what it has to remember.

    :param owner: what is followed, and whether it is to be stopped.
    :param child: its process.
    :param sink: takes its output.
    :param wake: a descriptor that becomes readable when the owner has changed its mind.
    :param within: seconds after which it is stopped; it may take its time if not given.
    """

    def __init__(self, owner: Process, child: Child, sink: Sink, wake: int, within: float | None = None) -> None:
        self._owner = owner
        self._child = child
        self._code: int | None = None
        self._sink = sink
        self._wake = wake
        self._splitters = {Stream.STDOUT: LineSplitter(), Stream.STDERR: LineSplitter()}
        self._open = {child.stdout: Stream.STDOUT, child.stderr: Stream.STDERR}
        self._poll = select.poll()
        self._announcer: int | None = None
        self._supervisor: int | None = None
        self._stop_at = None if within is None else time.monotonic() + within
        self._is_to_be_looked_at = True
        self._has_ended = False
        self._is_lost = False
        self._ending: TreeTerminator | None = None
        self._is_tree_gone = False
        self._look_at = 0.0
        self._close_by: float | None = None
        self._leftovers = False

    def run(self) -> Exit:
        """Follow it to its end; whatever interrupts that ends the whole tree first."""
        if self._owner.guardian:
            self._owner.guardian.register(self._child.pid)
        try:
            self._register()
            try:
                self._loop()
            except BaseException:
                # Still read, so that no full pipe keeps the command from ending cleanly; but dropped.
                self._sink = _drop
                self._owner.stop()
                self._loop()
                raise
            finally:
                if self._has_ended:
                    self._reap()
        finally:
            self._close_descriptors()
        return self._exit()

    def _exit(self) -> Exit:
        code = self._code  # None if somebody else in this process has learnt it and kept it
        stopped, leftovers = self._owner.is_to_stop, self._leftovers
        if code is not None and code < 0:
            return Exit(None, -code, stopped, leftovers)
        return Exit(code, None, stopped, leftovers)

    def _register(self) -> None:
        self._announcer = _announcer(self._child.pid)
        if self._owner.supervisor is not None:
            self._supervisor = _announcer(self._owner.supervisor)
        for descriptor in (self._wake, *self._open, self._announcer, self._supervisor):
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)

    def _close_descriptors(self) -> None:
        for descriptor in (self._child.stdout, self._child.stderr, self._announcer, self._supervisor):
            if descriptor is not None:
                os.close(descriptor)

    def _loop(self) -> None:
        while not self._is_over():
            self._read(self._patience())
            for stream in self._open.values():  # a wait for output is shorter than the patience with a line
                self._hand_on(stream, self._splitters[stream].overdue())
            self._check_process()
            self._act(time.monotonic())

    def _is_over(self) -> bool:
        return self._has_ended and not self._open and (self._ending is None or self._is_tree_gone)

    def _patience(self) -> float:
        """Return how long to wait for output before something else has to be done."""
        moments = (self._close_by, self._stop_at, self._look_at if self._ending else None)
        waits = [max(0.0, moment - time.monotonic()) for moment in moments if moment is not None]
        if self._announcer is None and not self._has_ended:
            waits.append(_POLL)
        return min(waits, default=LONGEST_WAIT)

    def _read(self, patience: float) -> None:
        for descriptor, _ in self._poll.poll(patience * 1000):
            if (stream := self._open.get(descriptor)) is not None:
                if data := os.read(descriptor, _CHUNK):
                    self._hand_on(stream, self._splitters[stream].feed(data))
                else:
                    self._close(descriptor)
            elif descriptor == self._announcer:
                self._is_to_be_looked_at = True
            elif descriptor == self._wake:
                os.read(descriptor, _CHUNK)
            elif descriptor == self._supervisor:
                self._poll.unregister(descriptor)
                self._owner.stop()

    def _hand_on(self, stream: Stream, pieces: list[str]) -> None:
        if pieces:
            self._sink(stream, pieces)

    def _close(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        stream = self._open.pop(descriptor)
        self._hand_on(stream, self._splitters[stream].finish())

    def _check_process(self) -> None:
        """See whether it has ended, but do not reap it yet: until then its pid, and so its group, stay its own."""
        if self._has_ended or not self._is_to_be_looked_at:
            return
        try:
            self._has_ended = self._learn_whether_it_has_ended()
        except ChildProcessError:
            self._has_ended = self._is_lost = True
        if self._announcer is not None:
            self._is_to_be_looked_at = False  # it says when
            if self._has_ended:
                self._poll.unregister(self._announcer)

    def _learn_whether_it_has_ended(self) -> bool:
        """Tell whether the process has ended, without reaping it where the system can.

        :raises ChildProcessError: when somebody else has reaped it.
        """
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        pid, status = os.waitpid(self._child.pid, os.WNOHANG)
        if pid:
            self._code = os.waitstatus_to_exitcode(status)
        return pid != 0

    def _act(self, now: float) -> None:
        """Do what time or a request has made due."""
        if self._stop_at is not None and now >= self._stop_at:
            self._stop_at = None
            self._owner.stop()
        if self._owner.is_to_stop and not self._ending:
            self._begin_end()
        if self._ending and now >= self._look_at:
            self._is_tree_gone = not self._ending.step(at_once=self._owner.is_to_stop_at_once)
            self._look_at = now + _LOOK
            if self._is_tree_gone:
                self._sweep()
        if self._has_ended and self._open and (not self._ending or self._is_tree_gone):
            self._wait_for_those_who_hold_the_output(now)
        else:
            self._close_by = None

    def _wait_for_those_who_hold_the_output(self, now: float) -> None:
        if self._close_by is None:
            self._close_by = now + _LINGER
        elif now >= self._close_by and not self._ending:
            self._leftovers = True
            self._close_by = None
            self._begin_end()
        elif now >= self._close_by:
            for descriptor in list(self._open):  # somebody out of reach has it
                self._close(descriptor)

    def _begin_end(self) -> None:
        roots = (self._child.pid,) if self._is_unreaped() else ()
        self._ending = new_terminator(self._owner.mark, self._owner.grace, roots)

    def _sweep(self) -> None:
        """Kill what keeps forking and was never there when looked for: a group that is killed forks no more."""
        if self._is_unreaped():
            with suppress(OSError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def _is_unreaped(self) -> bool:
        """Tell whether its pid is certainly still its own."""
        return self._code is None and not self._is_lost

    def _reap(self) -> None:
        pid = self._child.pid
        if self._owner.guardian:
            self._owner.guardian.unregister(pid)
        if not self._is_unreaped():
            return
        try:
            self._code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            self._is_lost = True


def new_terminator(mark: str, grace: float, roots: Sequence[int] = ()) -> TreeTerminator:
    """Begin to end a tree. What that takes is imported now: psutil takes as long as a short task's start."""
    from airflow_provider_sewer.execution.process_tree import TreeTerminator

    return TreeTerminator(mark, grace, roots)


def _drop(_: Stream, __: Sequence[str]) -> None:
    pass


def _announcer(pid: int) -> int | None:
    """Return a descriptor that becomes readable when a process ends; ``None`` where there is no such thing."""
    if hasattr(os, "pidfd_open"):
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None
