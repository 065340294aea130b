"""Fixtures: generated modules, and plans that run them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.call import module_call
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.execution.module_runner import ModuleResult, ModuleRunner, RunEnvironment
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.process import GRACE
from tests.execution.workflow_helpers import Plan, Witness
from tests.process_fixtures import (
    background,
    gate,
    lifeline,
    no_test_hangs_or_leaves_processes_behind,
    script,
)
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["background", "gate", "lifeline", "no_test_hangs_or_leaves_processes_behind", "script"]


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


@pytest.fixture(params=["as it is", "no pidfd", "no pidfd and no waitid"])
def on_any_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as on systems without pidfds, or without ``waitid``."""
    if "pidfd" in request.param:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    if "waitid" in request.param:
        monkeypatch.delattr(os, "waitid", raising=False)
