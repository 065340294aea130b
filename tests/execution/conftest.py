"""Fixtures: generated modules, and pipes that report when every process has ended."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_provider_sewer.core.call import module_call
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.execution.module_runner import GRACE, ModuleResult, ModuleRunner, RunEnvironment
from airflow_provider_sewer.execution.output import Stream
from tests.execution.external_env import Land
from tests.execution.workflow_helpers import Plan, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE = float(os.environ.get("SEWER_TEST_PATIENCE", "60"))


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
        self._heard = b""

    def expect(self, word: str, times: int = 1) -> None:
        """Wait until a word has been written so many times."""
        self._wait(lambda: self._heard.count(word.encode()) >= times, f"{word!r} {times} times")

    def expect_end(self) -> None:
        """Wait until no process holds the pipe."""
        self._wait(lambda: False, "the end of all that hold it")

    @property
    def heard(self) -> str:
        """Return all that was written so far."""
        return self._heard.decode()

    def close(self) -> None:
        os.close(self._fd)

    def _wait(self, is_over: Callable[[], bool], event: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_over():
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                pytest.fail(f"timed out waiting for {event}; received {self._heard!r}")
            data = os.read(self._fd, 65536)
            if not data and self._heard:
                if event.startswith("the end"):
                    return
                pytest.fail(f"all processes that hold the pipe ended without {event}; received {self._heard!r}")
            if not data:
                time.sleep(0.002)  # a named pipe cannot be waited on before a process opens it
            self._heard += data


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
        """Let everybody pass, from now on."""
        self._file.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return a closed gate."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture
def signal_unnoticed() -> Iterator[Callable[[Callable[[], None], Callable[[], None]], None]]:
    """Return a function that calls a handler for a signal that does not interrupt the wait of this thread.

    So it is with a signal that comes just before the wait begins.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    threads: list[threading.Thread] = []

    def receive(wait: Callable[[], None]) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    def install(handler: Callable[[], None], wait: Callable[[], None]) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: handler())
        threads.append(threading.Thread(target=receive, args=(wait,)))
        threads[0].start()

    yield install
    threads[0].join(PATIENCE)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])


class Ran:
    """Result of a run: its output by stream, and its value or its error."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Stream, str]] = []
        self.started: list[tuple[str, str | None]] = []
        self.value: Any = None
        self.error: BaseException | None = None

    def sink(self, stream: Stream, pieces: Sequence[str]) -> None:
        self.pieces += [(stream, piece) for piece in pieces]

    def note_start(self, line: str, workdir: str | None) -> None:
        self.started.append((line, workdir))

    @property
    def stdout(self) -> str:
        return "".join(piece for stream, piece in self.pieces if stream is Stream.STDOUT)

    @property
    def stderr(self) -> str:
        return "".join(piece for stream, piece in self.pieces if stream is Stream.STDERR)


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


class Modules:
    """Generated modules, and the settings to run them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._count = 0

    def write(self, source: str, name: str = "") -> str:
        """Write a module and return its name."""
        self._count += 1
        name = name or f"made_{self._count}"
        path = self.folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return name

    def settings(self, **fields: Any) -> ExecutionSettings:
        """Return settings under which they are found."""
        env = {"PYTHONPATH": str(self.folder), **fields.pop("env", {})}
        return ExecutionSettings.checked(**{"python": sys.executable, "env": env, **fields})

    def module_run(self, source: str, *arguments: str, **options: Any) -> ModuleRunner:
        """Write a module and return a run of it."""
        settings = options.pop("settings", None) or self.settings()
        runner = RunEnvironment(options.pop("grace", GRACE))
        return ModuleRunner(module_call(self.write(source), arguments), settings, runner, **options)

    def run_there(self, module: str, settings: ExecutionSettings) -> Ran:
        """Run a module that exists, or does not, and return the result."""
        return followed(ModuleRunner(module_call(module, []), settings))

    def run(self, source: str, *arguments: str, **options: Any) -> Ran:
        """Write a module, run it, and return the result."""
        return followed(self.module_run(source, *arguments, **options))


def followed(run: ModuleRunner) -> Ran:
    """Run to the end and return the result."""
    ran = Ran()
    try:
        result = run.run(ran.sink, on_start=ran.note_start)
        assert isinstance(result, ModuleResult)
        ran.value = result.value
    except Exception as error:
        ran.error = error
    return ran


@pytest.fixture
def modules(tmp_path: Path) -> Modules:
    """Return a writer and runner of modules."""
    return Modules(tmp_path / "modules")


@pytest.fixture
def witness() -> Witness:
    """Return an observer that remembers."""
    return Witness()


@pytest.fixture
def plan(modules: Modules, witness: Witness) -> Plan:
    """Return an empty plan."""
    return Plan(modules, witness)


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """Return a folder that only an administrator may enter, in one that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="closed ") as folder:
        os.chmod(folder, 0o755)
        closed = Path(folder, "closed")
        closed.mkdir()
        closed.chmod(0o600)
        yield closed


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


@pytest.fixture(params=["as it is", "no pidfd", "no pidfd and no waitid"])
def on_any_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as on systems without pidfds, or without ``waitid``."""
    if "pidfd" in request.param:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    if "waitid" in request.param:
        monkeypatch.delattr(os, "waitid", raising=False)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this test with the cached workflows that other interpreters have read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "airflow-provider-sewer" / "workflows"


@pytest.fixture
def land(tmp_path: Path, cache: Path) -> Land:
    """Return an environment made of the interpreter that runs the tests, with nothing in it."""
    return Land(tmp_path, sys.executable)


@pytest.fixture
def any_land(tmp_path: Path, cache: Path, any_python: Path) -> Land:
    """Return one of each version of Python."""
    return Land(tmp_path, any_python)
