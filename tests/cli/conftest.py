"""Fixtures: a real ``sppe``, also in a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyte
import pytest

from tests.process_fixtures import gate, lifeline, no_test_hangs_or_leaves_processes_behind
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["gate", "lifeline", "no_test_hangs_or_leaves_processes_behind"]

ABOUT_TERMINALS = {"NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
SPPE = [sys.executable, "-c", "from airflow_provider_sewer.cli import main; main()"]


class Sppe:
    """The command ``sppe`` and a folder to run it in, with a workflow file ``flow.py``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._started: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> str:
        """Write a file and return its name."""
        (self.folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
        return name

    def tasks(self, **sources: str) -> None:
        """Write a module for each task, and a workflow file in which they do not depend on each other."""
        for name, source in sources.items():
            self.write(f"{name}_module.py", source)
        lines = [f"{name} = Task({name!r}, '{name}_module')" for name in sources]
        self.write("flow.py", "\n".join(["from airflow_provider_sewer import Task", *lines]))

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        process = self.start(*arguments, **options)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start it; ``run`` means ``run -p flow.py`` with this very interpreter, unless another or none is named."""
        python = options.pop("python", sys.executable)
        if arguments[0] == "run":
            arguments = ("run", "-p", "flow.py", *(("-i", python) if python else ()), *arguments[1:])
        process = subprocess.Popen(
            [*options.pop("through", []), *SPPE, *arguments],
            **{
                "cwd": self.folder,
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "encoding": "utf-8",
                "env": self.environment(**options.pop("env", {})),
                **options,
            },
        )
        self._started.append(process)
        return process

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment it is started with."""
        inherited = {name: value for name, value in os.environ.items() if name not in ABOUT_TERMINALS}
        return {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}

    def clean_up(self) -> None:
        """End the processes that a failed test has left."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in filter(None, (process.stdout, process.stderr)):
                pipe.close()


@pytest.fixture
def sppe(tmp_path: Path) -> Iterator[Sppe]:
    """Return the command, and a folder of its own."""
    command = Sppe(tmp_path / "work")
    yield command
    command.clean_up()


def take_over_terminal() -> None:
    """Make the terminal on stderr the one whose Ctrl-C reaches this process."""
    os.setsid()
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)


class Terminal:
    """A real terminal, in which one program runs, and the screen that a user sees."""

    def __init__(self, rows: int, columns: int) -> None:
        self.raw = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = threading.Condition()
        self._master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, sppe: Sppe, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``sppe`` as the program that Ctrl-C goes to."""
        all_three = dict.fromkeys(("stdin", "stdout", "stderr"), self.slave)
        env = {"TERM": "xterm-256color", **options.pop("env", {})}
        return sppe.start(*arguments, **{**all_three, "preexec_fn": take_over_terminal, "env": env, **options})

    def type(self, text: bytes) -> None:
        """Type something."""
        os.write(self._master, text)

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self.slave)
        os.close(self._master)
        self._master = self.slave = -1

    @property
    def lines(self) -> list[str]:
        """Return the lines on the screen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def shows_cursor(self) -> bool:
        """Return whether the cursor is visible."""
        return not self._screen.cursor.hidden

    def expect(self, is_so: Callable[[str], Any]) -> None:
        """Wait until the screen is as it should be."""
        with self._changed:
            is_over = lambda: is_so("\n".join(self.lines))  # noqa: E731
            assert self._changed.wait_for(is_over, PATIENCE), "\n".join(self.lines)

    def close(self) -> None:
        """Read to the end and close it."""
        if self.slave >= 0:
            os.close(self.slave)
        self._reader.join(PATIENCE)
        if self._master >= 0:
            os.close(self._master)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                with self._changed:
                    self.raw += data
                    self._stream.feed(data)
                    self._changed.notify_all()


@pytest.fixture
def terminal() -> Iterator[Callable[[int, int], Terminal]]:
    """Return a function that opens a terminal of some size."""
    opened: list[Terminal] = []

    def open_it(rows: int = 24, columns: int = 80) -> Terminal:
        opened.append(Terminal(rows, columns))
        return opened[-1]

    yield open_it
    for one in opened:
        one.close()
