"""Start a command, follow its output, and see it to its end: itself and all it has started."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask, SewerError, WorkdirError
from airflow_provider_sewer.runners.output import LineSplitter, Stream

if TYPE_CHECKING:
    from types import ModuleType

    from airflow_provider_sewer.core.command import Command
    from airflow_provider_sewer.runners.output import Sink

_CHUNK = 64 * 1024
#: Seconds that leftovers of a command get to close its output once the command itself has ended.
_LINGER = 2.0
#: Seconds between two attempts to kill, and until a pipe that somebody else still holds is let go.
_KILL_AGAIN = 0.5
_LET_GO = 5.0
#: Seconds between looks at a process where the kernel cannot announce its end.
_POLL = 0.02


class Exit(NamedTuple):
    """How a command ended.

    :param code: its exit code, or ``None`` if a signal ended it.
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
    """

    def __init__(self, command: Command, *, mark: str, grace: float) -> None:
        self._command = command
        self._mark = mark
        self._grace = grace
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._stop_requested = False
        self._kill_now = False

    def stop(self, *, at_once: bool = False) -> None:
        """Have the whole tree ended; from a signal handler or another thread, and as often as you like.

        It only asks: :meth:`follow` does the work and returns when nothing is left.

        :param at_once: leave out SIGTERM and the grace.
        """
        self._stop_requested = True
        self._kill_now = self._kill_now or at_once
        with suppress(OSError):
            os.write(self._waker, b"!")

    def follow(self, sink: Sink) -> Exit:
        """Start the command, hand its output to ``sink`` as it comes, and return how it ended.

        Whatever interrupts this, an error of the sink included, ends the whole tree first.

        :raises InterpreterError: when the executable cannot be started.
        :raises WorkdirError: when the working directory cannot be entered.
        :raises InvalidTask: when the arguments are longer than the system allows.
        """
        try:
            if self._stop_requested:
                return Exit(None, None, stopped=True, leftovers=False)
            with _started(self._command, self._mark) as process:
                return _Follower(self, process, sink).run()
        except SewerError:  # from the start: there is nothing to end
            raise
        except BaseException:
            _tree().end(self._mark, 0.0 if self._kill_now else self._grace)
            raise
        finally:
            os.close(self._wake)
            os.close(self._waker)


class _Follower:
    """The loop behind :meth:`Process.follow`, and what it has to remember."""

    def __init__(self, owner: Process, process: subprocess.Popen[bytes], sink: Sink) -> None:
        self._owner = owner
        self._process = process
        self._sink = sink
        self._splitters = {Stream.STDOUT: LineSplitter(), Stream.STDERR: LineSplitter()}
        self._open = 2
        self._leftovers = False
        self._close_by: float | None = None
        self._kill_at: float | None = None
        self._let_go_at: float | None = None

    def run(self) -> Exit:
        with selectors.DefaultSelector() as selector, _pidfd(self._process.pid) as pidfd:
            assert self._process.stdout and self._process.stderr
            selector.register(self._process.stdout, selectors.EVENT_READ, Stream.STDOUT)
            selector.register(self._process.stderr, selectors.EVENT_READ, Stream.STDERR)
            selector.register(self._owner._wake, selectors.EVENT_READ)
            if pidfd is not None:
                selector.register(pidfd, selectors.EVENT_READ)
            while not self._is_done():
                self._read(selector, self._patience(pidfd))
                if pidfd is not None and self._process.poll() is not None and pidfd in selector.get_map():
                    selector.unregister(pidfd)
                self._act(time.monotonic())
        for stream, splitter in self._splitters.items():
            self._hand_on(stream, splitter.finish())
        stopped = self._owner._stop_requested
        if stopped:
            _tree().end(self._owner._mark, 0.0 if self._kill_at is None else self._kill_at - time.monotonic())
        code = self._process.returncode
        return Exit(code if code >= 0 else None, -code if code < 0 else None, stopped, self._leftovers)

    def _is_done(self) -> bool:
        return self._process.poll() is not None and not self._open

    def _patience(self, pidfd: int | None) -> float | None:
        """Return how long to wait for output before something has to be done."""
        moments = [moment for moment in (self._close_by, self._kill_at, self._let_go_at) if moment is not None]
        waits = [max(0.0, min(moments) - time.monotonic())] if moments else []
        if pidfd is None:
            waits.append(_POLL)
        return min(waits, default=None)

    def _read(self, selector: selectors.BaseSelector, patience: float | None) -> None:
        for key, _ in selector.select(patience):
            if isinstance(key.data, Stream):
                if data := os.read(key.fd, _CHUNK):
                    self._hand_on(key.data, self._splitters[key.data].feed(data))
                else:
                    selector.unregister(key.fileobj)
                    self._open -= 1
            elif key.fd == self._owner._wake:
                os.read(key.fd, _CHUNK)

    def _hand_on(self, stream: Stream, pieces: list[str]) -> None:
        if pieces:
            self._sink(stream, pieces)

    def _act(self, now: float) -> None:
        """Do what time or a request has made due."""
        if self._owner._stop_requested and self._kill_at is None:
            self._begin_end(now)
        if self._owner._kill_now and self._kill_at is not None:
            self._kill_at = min(self._kill_at, now)
        if self._kill_at is None and self._process.returncode is not None and self._open:
            self._close_by = self._close_by or now + _LINGER
            if now >= self._close_by:
                self._leftovers = True
                self._begin_end(now)
        if self._kill_at is not None and now >= self._kill_at:
            self._signal_tree(signal.SIGKILL)
            self._kill_at = now + _KILL_AGAIN
            self._let_go_at = self._let_go_at or now + _LET_GO
        if self._let_go_at is not None and now >= self._let_go_at:
            self._open = 0

    def _begin_end(self, now: float) -> None:
        self._signal_tree(signal.SIGTERM)
        self._close_by = None
        self._kill_at = now + self._owner._grace

    def _signal_tree(self, number: int) -> None:
        tree = _tree()
        tree.send(tree.members(self._owner._mark), number)


def _started(command: Command, mark: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command.argv,
            env={**command.env, ATTEMPT_ID: mark},
            cwd=command.workdir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise _start_error(command, error) from error


def _start_error(command: Command, error: OSError) -> Exception:
    if error.errno == errno.E2BIG:
        size = sum(len(os.fsencode(word)) + 1 for word in command.argv)
        return InvalidTask(
            f"the arguments are too long for this system ({size:,} bytes, longest "
            f"{max(map(len, command.argv)):,}); pass a file instead"
        )
    if command.workdir is not None and error.filename == command.workdir:
        return WorkdirError(f"cannot enter the working directory {command.workdir}: {error.strerror}")
    return InterpreterError(f"cannot start {command.argv[0]}: {error.strerror}")


def _tree() -> ModuleType:
    """Import what ends trees when there is one to end: psutil takes as long as a short task's start."""
    from airflow_provider_sewer.runners import tree

    return tree


class _pidfd:
    """A descriptor that becomes readable when the process ends; ``None`` where there is no such thing."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd: int | None = None

    def __enter__(self) -> int | None:
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):
                self._fd = os.pidfd_open(self._pid)
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
