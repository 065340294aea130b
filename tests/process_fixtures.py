"""Fixtures for tests that start processes: pipes that report their progress and their end, programs and threads."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_test_hangs_or_leaves_processes_behind() -> Iterator[None]:
    """Fail a test that hangs, or that leaves a child process behind."""

    def fail(*_: Any) -> None:
        pytest.fail(f"hangs for {2 * PATIENCE:.0f} s")

    before = {process.pid for process in psutil.Process().children()}
    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(int(2 * PATIENCE))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    # Not those of an Airflow that runs for the whole session: its parts start processes at any time.
    new = [process for process in psutil.Process().children() if process.pid not in before]
    left = []
    for process in [*new, *(each for one in new for each in one.children(recursive=True))]:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                left.append(str(process.cmdline()))
                process.kill()
    assert not left, f"left behind: {left}"


class Lifeline:
    """A named pipe that processes hold open: they write their progress, and its end means that all have ended.

    A module opens it with ``life = os.open(sys.argv[1], os.O_WRONLY)``; its child processes hold it too.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._received = b""

    def expect(self, word: str, times: int = 1) -> None:
        """Wait until a word has been written so many times."""
        self._wait(lambda: self._received.count(word.encode()) >= times, f"{word!r} {times} times")

    def expect_end(self) -> None:
        """Wait until no process holds the pipe."""
        self._wait(lambda: False, "the end of all that hold it")

    @property
    def heard(self) -> str:
        """Return all that was written so far."""
        return self._received.decode()

    def close(self) -> None:
        os.close(self._fd)

    def _wait(self, is_over: Callable[[], bool], event: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_over():
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                pytest.fail(f"timed out waiting for {event}; received {self._received!r}")
            data = os.read(self._fd, 65536)
            if not data and self._received:
                if event.startswith("the end"):
                    return
                pytest.fail(f"all processes that hold the pipe ended without {event}; received {self._received!r}")
            if not data:
                time.sleep(0.002)  # a named pipe cannot be waited on before a process opens it
            self._received += data


@pytest.fixture
def lifeline(tmp_path: Path) -> Iterator[Lifeline]:
    """Return a pipe for processes to hold."""
    line = Lifeline(tmp_path / "lifeline")
    yield line
    line.close()


class Gate:
    """A closed gate: modules that call ``fcntl.flock(open(path), fcntl.LOCK_SH)`` wait until it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def open(self) -> None:
        """Let all modules pass, from now on."""
        self._file.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return a closed gate."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


class Background:
    """Something that runs in a thread of its own and whose end is awaited, not for ever."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._call, args=(function,), daemon=True)
        self._thread.start()

    def _call(self, function: Callable[[], Any]) -> None:
        try:
            self._value = function()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Return its return value, or raise its exception."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it does not come to an end"
        if self._error is not None:
            raise self._error
        return self._value


@pytest.fixture
def background() -> Callable[[Callable[[], Any]], Background]:
    """Return a function that starts a function in a thread."""
    return Background


class Script:
    """A separate Python program, for events that must not affect the process of the tests."""

    def __init__(self, source: str, *arguments: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **options.pop("env", {})},
            **options,
        )

    def output(self) -> str:
        """Wait for its end and return its stdout."""
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, stderr
        return stdout

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Return a function that starts a Python program."""
    started: list[Script] = []

    def start(source: str, *arguments: str, **options: Any) -> Script:
        started.append(Script(source, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
