"""Process of a command, followed until it and all its descendants have ended."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import threading
import time
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import InterpreterError, InvalidTask, SewerError, WorkdirError
from airflow_provider_sewer.execution.output import LineSplitter, Stream
from airflow_provider_sewer.execution.standard_streams import is_written_to, opened_streams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.command import Command
    from airflow_provider_sewer.execution.orphan_reaper import OrphanReaper
    from airflow_provider_sewer.execution.output import Sink
    from airflow_provider_sewer.execution.process_tree import TreeTerminator

#: Default seconds between SIGTERM and SIGKILL. Airflow itself kills a worker 5 s after it has asked it to stop.
GRACE = 4.0

_PAUSE = 0.05


class Process:
    """Process of a command, which can be stopped.

    :param command: the command.
    :param mark: the tag that its environment carries (see :mod:`airflow_provider_sewer.execution.process_tree`).
    :param grace: seconds between SIGTERM and SIGKILL when it is stopped.
    :param guardian: the reaper that it is registered with.
    :param supervisor: pid of the process it is run for; when that ends, it is stopped.
    """

    def __init__(
        self,
        command: Command,
        *,
        mark: str,
        grace: float,
        guardian: OrphanReaper | None = None,
        supervisor: int | None = None,
    ) -> None:
        self.command = command
        self.mark = mark
        self.grace = grace
        self.guardian = guardian
        self.supervisor = supervisor
        #: Usage of the command and the descendants it waited for, once it has ended: see ``TaskUsage.used``.
        self.used: Mapping[str, float] = {}
        self.is_to_stop = False
        self.is_to_stop_at_once = False
        self._waker: int | None = None
        # Reentrant, because a signal handler may call stop() while its own thread holds the lock.
        self._lock = threading.RLock()

    def stop(self, *, at_once: bool = False) -> None:
        """Request the end of the whole tree; callable repeatedly, from a signal handler or another thread.

        :meth:`follow` ends the tree, and returns when no process is left.

        :param at_once: skip SIGTERM and the grace.
        """
        self.is_to_stop_at_once = self.is_to_stop_at_once or at_once
        self.is_to_stop = True
        with self._lock, suppress(BlockingIOError):
            if self._waker is not None:
                os.write(self._waker, b"!")

    def follow(self, sink: Sink, *, within: float | None = None) -> Exit:
        """Start the command, pass its output to ``sink`` as it is written, and return its exit.

        Any exception, including one from the sink, is raised only after the whole tree has been ended.

        :param within: seconds after which it is stopped.
        :raises InterpreterError: when the executable cannot be started.
        :raises WorkdirError: when the working directory cannot be entered.
        :raises InvalidTask: when the arguments are longer than the system allows.
        :raises ProductError: when the file of its stdin or stdout cannot be opened.
        """
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        self._waker = waker
        try:
            if self.is_to_stop:
                return Exit(None, None, stopped=True, leftovers=False)
            return ProcessFollower(self, spawn(self.command, self.mark), sink, wake, within).run()
        except SewerError:  # the command was not started, or has been ended
            raise
        except BaseException:  # raised by a signal handler, perhaps before the follower existed
            self._end_remaining()
            raise
        finally:
            with self._lock:  # so that stop() does not write to a file that reuses the descriptor
                self._waker = None
                os.close(waker)
            os.close(wake)

    def _end_remaining(self) -> None:
        ending = new_terminator(self.mark, self.grace)
        while ending.step(at_once=self.is_to_stop_at_once):
            time.sleep(_PAUSE)


_CHUNK = 64 * 1024
#: Seconds that background processes get to close a command's output, once the command has ended.
_LINGER = 2.0
#: Seconds between two checks of a tree that is being ended, and of a process without a pidfd.
_CHECK_INTERVAL = 0.05
_POLL = 0.02
#: The longest wait, in seconds: Python sees a signal that comes just before a wait only after it.
LONGEST_WAIT = 1.0


class Exit(NamedTuple):
    """How a command ended.

    :param code: its exit code; ``None`` if a signal ended it, or if the code is unknown.
    :param signal: the number of that signal.
    :param stopped: whether it was ended on request.
    :param leftovers: whether it left processes behind that kept its output open and were ended.
    """

    code: int | None
    signal: int | None
    stopped: bool
    leftovers: bool


class ProcessFollower:
    """The loop behind :meth:`Process.follow`, and its state.

    :param owner: the followed process, and whether it is to be stopped.
    :param child: its child process.
    :param sink: receives its output.
    :param wake: a descriptor that becomes readable when the owner has received a stop request.
    :param within: seconds after which it is stopped; no limit if omitted.
    """

    def __init__(self, owner: Process, child: Child, sink: Sink, wake: int, within: float | None = None) -> None:
        self._owner = owner
        self._child = child
        self._code: int | None = None
        self._began = time.monotonic()
        self._sink = sink
        self._wake = wake
        self._splitters = {Stream.STDOUT: LineSplitter(), Stream.STDERR: LineSplitter()}
        pipes = {Stream.STDOUT: child.stdout, Stream.STDERR: child.stderr}
        self._open = {pipe: stream for stream, pipe in pipes.items() if pipe is not None}
        self._poll = select.poll()
        self._pidfd: int | None = None
        self._supervisor: int | None = None
        self._stop_at = None if within is None else time.monotonic() + within
        self._is_check_due = True
        self._has_ended = False
        self._is_reaped_elsewhere = False
        self._ending: TreeTerminator | None = None
        self._is_tree_gone = False
        self._check_at = 0.0
        self._close_by: float | None = None
        self._is_file_written_to = child.stdout_file is not None
        self._leftovers = False

    def run(self) -> Exit:
        """Follow it to its end; an exception ends the whole tree before it is raised."""
        if self._owner.guardian:
            self._owner.guardian.register(self._child.pid)
        try:
            self._register()
            try:
                self._loop()
            except BaseException:
                # The output is still read, so that a full pipe does not block a clean exit, but dropped.
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
        code = self._code  # None if other code in this process has collected it
        stopped, leftovers = self._owner.is_to_stop, self._leftovers
        if code is not None and code < 0:
            return Exit(None, -code, stopped, leftovers)
        return Exit(code, None, stopped, leftovers)

    def _register(self) -> None:
        self._pidfd = _pidfd_of(self._child.pid)
        if self._owner.supervisor is not None:
            self._supervisor = _pidfd_of(self._owner.supervisor)
        for descriptor in (self._wake, *self._open, self._pidfd, self._supervisor):
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)

    def _close_descriptors(self) -> None:
        pipes = self._child.stdout, self._child.stderr
        for descriptor in (*pipes, self._pidfd, self._supervisor):
            if descriptor is not None:
                os.close(descriptor)

    def _loop(self) -> None:
        while not self._is_over():
            self._read(self._wait_limit())
            for stream in self._open.values():  # a wait for output is shorter than the time limit of a line
                self._forward(stream, self._splitters[stream].overdue())
            self._check_process()
            self._act(time.monotonic())

    def _is_over(self) -> bool:
        has_output = self._open or self._is_file_written_to
        return self._has_ended and not has_output and (self._ending is None or self._is_tree_gone)

    def _wait_limit(self) -> float:
        """Return how long to wait for output before another action is due."""
        moments = (self._close_by, self._stop_at, self._check_at if self._ending else None)
        waits = [max(0.0, moment - time.monotonic()) for moment in moments if moment is not None]
        if self._has_ended and self._is_file_written_to:
            waits.append(_CHECK_INTERVAL)
        if self._pidfd is None and not self._has_ended:
            waits.append(_POLL)
        return min(waits, default=LONGEST_WAIT)

    def _read(self, timeout: float) -> None:
        for descriptor, _ in self._poll.poll(timeout * 1000):
            if (stream := self._open.get(descriptor)) is not None:
                if data := os.read(descriptor, _CHUNK):
                    self._forward(stream, self._splitters[stream].feed(data))
                else:
                    self._close(descriptor)
            elif descriptor == self._pidfd:
                self._is_check_due = True
            elif descriptor == self._wake:
                os.read(descriptor, _CHUNK)
            elif descriptor == self._supervisor:
                self._poll.unregister(descriptor)
                self._owner.stop()

    def _forward(self, stream: Stream, pieces: list[str]) -> None:
        if pieces:
            self._sink(stream, pieces)

    def _close(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        stream = self._open.pop(descriptor)
        self._forward(stream, self._splitters[stream].finish())

    def _check_process(self) -> None:
        """Check whether it has ended, without reaping it, so that its pid and its group are not reused."""
        if self._has_ended or not self._is_check_due:
            return
        try:
            self._has_ended = self._poll_exit()
        except ChildProcessError:
            self._has_ended = self._is_reaped_elsewhere = True
        if self._pidfd is not None:
            self._is_check_due = False  # until the pidfd becomes readable
            if self._has_ended:
                self._poll.unregister(self._pidfd)

    def _poll_exit(self) -> bool:
        """Return whether the process has ended, without reaping it where the system supports that.

        :raises ChildProcessError: when other code has reaped it.
        """
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        pid, status = os.waitpid(self._child.pid, os.WNOHANG)
        if pid:
            self._code = os.waitstatus_to_exitcode(status)
        return pid != 0

    def _act(self, now: float) -> None:
        """Perform the actions that a deadline or a stop request has made due."""
        if self._stop_at is not None and now >= self._stop_at:
            self._stop_at = None
            self._owner.stop()
        if self._owner.is_to_stop and not self._ending:
            self._begin_end()
        if self._ending and now >= self._check_at:
            self._is_tree_gone = not self._ending.step(at_once=self._owner.is_to_stop_at_once)
            self._check_at = now + _CHECK_INTERVAL
            if self._is_tree_gone:
                self._sweep()
        if self._has_ended and self._is_file_written_to:
            self._check_file()
        has_output = self._open or self._is_file_written_to
        if self._has_ended and has_output and (not self._ending or self._is_tree_gone):
            self._wait_for_output_holders(now)
        else:
            self._close_by = None

    def _check_file(self) -> None:
        """Check whether a background process could still write to the file of its stdout."""
        file = self._child.stdout_file
        self._is_file_written_to = file is not None and is_written_to(file, self._owner.mark, self._child.pid)

    def _wait_for_output_holders(self, now: float) -> None:
        if self._close_by is None:
            self._close_by = now + _LINGER
        elif now >= self._close_by and not self._ending:
            self._leftovers = True
            self._close_by = None
            self._begin_end()
        elif now >= self._close_by:
            for descriptor in list(self._open):  # held by a process that cannot be ended
                self._close(descriptor)
            self._is_file_written_to = False

    def _begin_end(self) -> None:
        roots = (self._child.pid,) if self._is_unreaped() else ()
        self._ending = new_terminator(self._owner.mark, self._owner.grace, roots)

    def _sweep(self) -> None:
        """Kill the process group: processes that fork faster than they are found cannot escape that."""
        if self._is_unreaped():
            with suppress(OSError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def _is_unreaped(self) -> bool:
        """Return whether its pid certainly still belongs to it."""
        return self._code is None and not self._is_reaped_elsewhere

    def _reap(self) -> None:
        pid = self._child.pid
        if self._owner.guardian:
            self._owner.guardian.unregister(pid)
        if not self._is_unreaped():
            return
        try:
            _, status, usage = os.wait4(pid, 0)
        except ChildProcessError:
            self._is_reaped_elsewhere = True
        else:
            self._code = os.waitstatus_to_exitcode(status)
            self._owner.used = {
                "elapsed": round(time.monotonic() - self._began, 3),
                "cpu": round(usage.ru_utime + usage.ru_stime, 3),
                "max_rss": usage.ru_maxrss * 1024.0,  # kibibytes, see getrusage(2)
            }


def new_terminator(mark: str, grace: float, roots: Sequence[int] = ()) -> TreeTerminator:
    """Begin to end a tree. psutil is imported only now: its import takes as long as the start of a short task."""
    from airflow_provider_sewer.execution.process_tree import TreeTerminator

    return TreeTerminator(mark, grace, roots)


def _drop(_: Stream, __: Sequence[str]) -> None:
    pass


def _pidfd_of(pid: int) -> int | None:
    """Return a pidfd, which becomes readable when a process ends; ``None`` if the system has none."""
    if hasattr(os, "pidfd_open"):
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None


class Child(NamedTuple):
    """A started process; the caller collects its exit code.

    :param pid: its pid.
    :param stdout: the descriptor from which its stdout is read; ``None`` if that is a file.
    :param stderr: the same for its stderr.
    :param stdout_file: the status of that file.
    """

    pid: int
    stdout: int | None
    stderr: int
    stdout_file: os.stat_result | None = None


def spawn(command: Command, mark: str) -> Child:
    """Start a command in its own session, with an empty stdin unless it has a file.

    :param mark: the tag that it and all its descendants carry in their environment.
    :raises InterpreterError: when the executable cannot be started.
    :raises WorkdirError: when the working directory cannot be entered.
    :raises InvalidTask: when the arguments are longer than the system allows.
    :raises ProductError: when the file of its stdin or stdout cannot be opened.
    """
    with opened_streams(command) as (stdin, file):
        stdout, its_stdout = (None, file) if file is not None else os.pipe()
        stderr, its_stderr = os.pipe()
        try:
            process = subprocess.Popen(
                command.argv,
                env={**command.env, ATTEMPT_ID: mark},
                cwd=command.workdir,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=its_stdout,
                stderr=its_stderr,
                start_new_session=True,
            )
        except BaseException as error:
            for descriptor in (stdout, stderr):
                if descriptor is not None:
                    os.close(descriptor)
            if isinstance(error, OSError):
                raise _start_error(command, error) from error
            raise
        finally:
            for descriptor in (its_stdout, its_stderr):
                if descriptor != file:
                    os.close(descriptor)
        process.returncode = 0  # so that Popen does not wait for the process
        return Child(process.pid, stdout, stderr, None if file is None else os.fstat(file))


def _start_error(command: Command, error: OSError) -> SewerError:
    if error.errno == errno.E2BIG:
        return InvalidTask(f"too long for this system: {_long_parts(command)}; put it into a file and pass the path")
    if command.workdir is not None and error.filename == command.workdir:
        return WorkdirError(f"cannot enter the working directory {command.workdir}: {error.strerror}")
    executable = command.argv[0]
    if error.errno == errno.ENOENT and os.path.exists(executable):
        return InterpreterError(
            f"cannot start {executable}: it exists, but the program that runs it does not "
            "(the one after #! in its first line, or the loader of the system it was built for); install it again"
        )
    return InterpreterError(f"cannot start {executable}: {error.strerror}")


def _long_parts(command: Command) -> str:
    """Return a description of the longest argument or variable, without its value."""
    sizes = [(_size(word), _position(before)) for before, word in pairwise(command.argv)]
    sizes += [(_size(f"{name}={value}"), f"the variable {name!r}") for name, value in command.env.items()]
    longest, name = max(sizes)
    total = sum(size for size, _ in sizes)
    return f"arguments and environment are {total:,} bytes together, {name} alone is {longest:,} bytes"


def _size(text: str) -> int:
    return len(os.fsencode(text)) + 1


def _position(before: str) -> str:
    return f"the one after {before.partition('=')[0]}" if before.startswith("--") else "an argument"
