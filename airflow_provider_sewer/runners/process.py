"""Start a command, follow its output, and see it to its end: itself and all it has started."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from typing import IO, TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask, SewerError, WorkdirError
from airflow_provider_sewer.runners.output import LineSplitter, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_sewer.core.command import Command
    from airflow_provider_sewer.runners.guardian import Guardian
    from airflow_provider_sewer.runners.output import Sink
    from airflow_provider_sewer.runners.tree import Ending

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


class Process:
    """A command that is started, followed and, if need be, stopped.

    :param command: what to start.
    :param mark: the mark that its environment carries (see :mod:`airflow_provider_sewer.runners.tree`).
    :param grace: seconds between SIGTERM and SIGKILL when it is stopped.
    :param guardian: who is told of it.
    :param supervisor: pid of the process it is run for; when that ends, it is stopped.
    """

    def __init__(
        self,
        command: Command,
        *,
        mark: str,
        grace: float,
        guardian: Guardian | None = None,
        supervisor: int | None = None,
    ) -> None:
        self.command = command
        self.mark = mark
        self.grace = grace
        self.guardian = guardian
        self.supervisor = supervisor
        self.is_to_stop = False
        self.is_to_stop_at_once = False
        self._waker: int | None = None
        # Reentrant, for a signal handler may call stop() while its own thread is inside of it.
        self._lock = threading.RLock()

    def stop(self, *, at_once: bool = False) -> None:
        """Have the whole tree ended; from a signal handler or another thread, and as often as you like.

        It only asks: :meth:`follow` does the work and returns when nothing is left.

        :param at_once: leave out SIGTERM and the grace.
        """
        self.is_to_stop_at_once = self.is_to_stop_at_once or at_once
        self.is_to_stop = True
        with self._lock, suppress(BlockingIOError):
            if self._waker is not None:
                os.write(self._waker, b"!")

    def follow(self, sink: Sink) -> Exit:
        """Start the command, hand its output to ``sink`` as it comes, and return how it ended.

        Whatever interrupts this, an error of the sink included, ends the whole tree first.

        :raises InterpreterError: when the executable cannot be started.
        :raises WorkdirError: when the working directory cannot be entered.
        :raises InvalidTask: when the arguments are longer than the system allows.
        """
        with self._can_be_woken() as wake:
            if self.is_to_stop:
                return Exit(None, None, stopped=True, leftovers=False)
            try:
                return _Follower(self, _started(self.command, self.mark), sink, wake).run()
            except SewerError:  # nothing was started, or it has been ended
                raise
            except BaseException:  # raised by a signal handler, perhaps before there was anybody to follow it
                self._end_what_is_left()
                raise

    def _end_what_is_left(self) -> None:
        ending = _ending()(self.mark, self.grace)
        while ending.step(at_once=self.is_to_stop_at_once):
            time.sleep(_LOOK)

    @contextmanager
    def _can_be_woken(self) -> Iterator[int]:
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        self._waker = waker
        try:
            yield wake
        finally:
            with self._lock:  # so that nothing is written to whoever gets these numbers next
                self._waker = None
                os.close(waker)
            os.close(wake)


class _Follower:
    """The loop behind :meth:`Process.follow`, and what it has to remember."""

    def __init__(self, owner: Process, process: subprocess.Popen[bytes], sink: Sink, wake: int) -> None:
        self._owner = owner
        self._process = process
        self._sink = sink
        self._wake = wake
        self._splitters = {Stream.STDOUT: LineSplitter(), Stream.STDERR: LineSplitter()}
        self._open: dict[Stream, IO[bytes]] = {Stream.STDOUT: process.stdout, Stream.STDERR: process.stderr}  # type: ignore[dict-item]
        self._has_ended = False
        self._is_lost = False
        self._ending: Ending | None = None
        self._is_tree_gone = False
        self._look_at = 0.0
        self._close_by: float | None = None
        self._leftovers = False

    def run(self) -> Exit:
        if self._owner.guardian:
            self._owner.guardian.watch(self._process.pid)
        with ExitStack() as stack:
            self._register(stack)
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
        return self._exit()

    def _exit(self) -> Exit:
        # Somebody else in this process may have learnt the code and kept it. Popen would call that a 0.
        code = None if self._is_lost else self._process.returncode
        stopped, leftovers = self._owner.is_to_stop, self._leftovers
        if code is not None and code < 0:
            return Exit(None, -code, stopped, leftovers)
        return Exit(code, None, stopped, leftovers)

    def _register(self, stack: ExitStack) -> None:
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._selector.register(self._wake, selectors.EVENT_READ)
        for stream, pipe in self._open.items():
            self._selector.register(stack.enter_context(pipe), selectors.EVENT_READ, stream)
        self._supervisor = None if self._owner.supervisor is None else _announcer(self._owner.supervisor)
        if self._supervisor is not None:
            stack.callback(os.close, self._supervisor)
            self._selector.register(self._supervisor, selectors.EVENT_READ)
        self._announcer = _announcer(self._process.pid)
        if self._announcer is not None:
            stack.callback(os.close, self._announcer)
            self._selector.register(self._announcer, selectors.EVENT_READ)

    def _loop(self) -> None:
        while not self._is_over():
            self._read(self._patience())
            self._look_at_process()
            self._act(time.monotonic())
        for stream in list(self._open):
            self._close(stream)

    def _is_over(self) -> bool:
        return self._has_ended and not self._open and (self._ending is None or self._is_tree_gone)

    def _patience(self) -> float:
        """Return how long to wait for output before something else has to be done."""
        moments = [] if self._close_by is None else [self._close_by]
        if self._ending:
            moments.append(self._look_at)
        waits = [max(0.0, moment - time.monotonic()) for moment in moments]
        if self._announcer is None and not self._has_ended:
            waits.append(_POLL)
        return min(waits, default=LONGEST_WAIT)

    def _read(self, patience: float) -> None:
        for key, _ in self._selector.select(patience):
            if isinstance(key.data, Stream):
                if data := os.read(key.fd, _CHUNK):
                    self._hand_on(key.data, self._splitters[key.data].feed(data))
                else:
                    self._close(key.data)
            elif key.fd == self._wake:
                os.read(key.fd, _CHUNK)
            elif key.fd == self._supervisor:
                self._selector.unregister(key.fd)
                self._owner.stop()

    def _hand_on(self, stream: Stream, pieces: list[str]) -> None:
        if pieces:
            self._sink(stream, pieces)

    def _close(self, stream: Stream) -> None:
        self._selector.unregister(self._open.pop(stream))
        self._hand_on(stream, self._splitters[stream].finish())

    def _look_at_process(self) -> None:
        """See whether it has ended, but do not reap it yet: until then its pid, and so its group, stay its own."""
        if self._has_ended:
            return
        try:
            self._has_ended = _has_ended(self._process)
        except ChildProcessError:
            self._has_ended = self._is_lost = True
        if self._has_ended and self._announcer is not None:
            self._selector.unregister(self._announcer)

    def _act(self, now: float) -> None:
        """Do what time or a request has made due."""
        if self._owner.is_to_stop and not self._ending:
            self._begin_end()
        if self._ending and now >= self._look_at:
            self._is_tree_gone = not self._ending.step(at_once=self._owner.is_to_stop_at_once)
            self._look_at = now + _LOOK
            if self._is_tree_gone:
                self._sweep()
        if self._has_ended and self._open and (not self._ending or self._is_tree_gone):
            self._wait_for_those_who_hold_the_output(now)

    def _wait_for_those_who_hold_the_output(self, now: float) -> None:
        if self._close_by is None:
            self._close_by = now + _LINGER
        elif now >= self._close_by and not self._ending:
            self._leftovers = True
            self._close_by = None
            self._begin_end()
        elif now >= self._close_by:
            for stream in list(self._open):  # somebody out of reach has it
                self._close(stream)

    def _begin_end(self) -> None:
        roots = () if self._is_lost else (self._process.pid,)
        self._ending = _ending()(self._owner.mark, self._owner.grace, roots)

    def _sweep(self) -> None:
        """Kill what keeps forking and was never there when looked for: a group that is killed forks no more."""
        if self._process.returncode is None and not self._is_lost:
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _reap(self) -> None:
        pid = self._process.pid
        if self._owner.guardian:
            self._owner.guardian.forget(pid)
        if self._process.returncode is not None or self._is_lost:
            return
        try:
            self._process.returncode = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            self._is_lost = True


def _ending() -> type[Ending]:
    """Import it when there is something to end: psutil takes as long as a short task's start."""
    from airflow_provider_sewer.runners.tree import Ending

    return Ending


def _drop(_: Stream, __: Sequence[str]) -> None:
    pass


def _started(command: Command, mark: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command.argv,
            bufsize=0,
            env={**command.env, ATTEMPT_ID: mark},
            cwd=command.workdir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise _start_error(command, error) from error


def _start_error(command: Command, error: OSError) -> SewerError:
    if error.errno == errno.E2BIG:
        return InvalidTask(f"too long for this system: {_what_is_long(command)}; put it into a file and pass the path")
    if command.workdir is not None and error.filename == command.workdir:
        return WorkdirError(f"cannot enter the working directory {command.workdir}: {error.strerror}")
    executable = command.argv[0]
    if error.errno == errno.ENOENT and os.path.exists(executable):
        return InterpreterError(
            f"cannot start {executable}: it exists, but what it needs to run does not "
            "(what its first line names after #!, or the loader of the system it was built for); install it anew"
        )
    return InterpreterError(f"cannot start {executable}: {error.strerror}")


def _what_is_long(command: Command) -> str:
    """Say what is too long, without showing it."""
    sizes = [(_size(word), _place(before)) for before, word in pairwise(command.argv)]
    sizes += [(_size(f"{name}={value}"), f"the variable {name!r}") for name, value in command.env.items()]
    longest, what = max(sizes)
    total = sum(size for size, _ in sizes)
    return f"arguments and environment are {total:,} bytes together, {what} alone is {longest:,} bytes"


def _size(text: str) -> int:
    return len(os.fsencode(text)) + 1


def _place(before: str) -> str:
    return f"the one after {before.partition('=')[0]}" if before.startswith("--") else "an argument"


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process has ended, without reaping it where the system can.

    :raises ChildProcessError: when somebody else has reaped it.
    """
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    pid, status = os.waitpid(process.pid, os.WNOHANG)
    if pid:
        process.returncode = os.waitstatus_to_exitcode(status)
    return pid != 0


def _announcer(pid: int) -> int | None:
    """Return a descriptor that becomes readable when a process ends; ``None`` where there is no such thing."""
    if hasattr(os, "pidfd_open"):
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None
