"""Shared fixtures: modules that run as jobs of a real cluster, each monitored in a separate thread."""

from __future__ import annotations

import itertools
import signal
import sys
import textwrap
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.slurm.accounting_queue import AccountingQueue
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_spec import JobSpec
from airflow_provider_sewer.slurm.local_backend import LocalBackend
from tests.slurm.worker import QUICK, Worker
from tests.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_sewer.slurm.backend import JobBackend
    from airflow_provider_sewer.slurm.job import Job
    from airflow_provider_sewer.slurm.job_result import JobResult
    from tests.slurm_cluster.cluster import SlurmCluster

LINES = 40

# Each module prints the same lines first, so that each test can check that its log is complete.
_PRELUDE = f"""\
import os, signal, sys, time
def say(text, file=sys.stdout): file.write(f"{{text}}\\n"), file.flush()  # in one piece
def say_all():
    for number in range({LINES}):
        say(f"line {{number}}")
    say("a warning", sys.stderr)
run_dir = os.path.dirname(os.environ["SEWER_RESULT_FILE"])
def wait_for(name):
    while not os.path.exists(os.path.join(run_dir, name)): time.sleep(0.05)
say_all()
"""
_OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}


@pytest.fixture(autouse=True)
def no_test_hangs_or_leaves_processes_behind() -> Iterator[None]:
    """Fail a test that hangs, or that leaves a child process behind; a query that is under way may end."""

    def fail(*_: Any) -> None:
        pytest.fail(f"hangs for {5 * PATIENCE:.0f} s")

    before = {process.pid for process in psutil.Process().children(recursive=True)}

    def left() -> list[psutil.Process]:
        children = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
        return [process for process in children if process.status() != psutil.STATUS_ZOMBIE]

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(int(5 * PATIENCE))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    deadline = time.monotonic() + PATIENCE
    while (remaining := left()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in remaining:
        process.kill()
    assert not remaining


class Followed:
    """A module that runs as a job, begun and followed to its end in a thread of its own."""

    def __init__(self, slurm: SlurmCluster | None, planned: JobSpec, patience: float | None = None) -> None:
        self.slurm = slurm
        self.run = JobRunner(planned, self._take, self._note, clusters=clusters(patience) if patience else None)
        self.pieces: list[tuple[Stream, str]] = []
        self.logged: list[str] = []
        self.value: Any = None
        self.error: BaseException | None = None
        self.ending: JobResult | None = None
        self._job: Job | None = None
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._to_its_end, daemon=True)
        self._thread.start()

    @property
    def job(self) -> Job:
        """Wait until it is submitted, and return its job."""
        assert self._has_begun.wait(2 * PATIENCE), "it is not submitted"
        assert self._job, self.error
        return self._job

    @property
    def id(self) -> str:
        return self.job.ref.id

    @property
    def directory(self) -> JobDirectory:
        return self.job.directory

    def expect_line(self, line: str, times: int = 1) -> None:
        """Wait until the module has written a line so many times, to its file."""

        def has_written() -> bool:
            path = Path(self.directory.stdout)
            return path.exists() and path.read_text().splitlines().count(line) >= times

        until(has_written, lambda: f"{line!r} of {self.job}; {self.logged}")

    def expect_start(self, *, runs: int = 1) -> None:
        """Wait until the module runs and has printed its first lines."""
        self.expect_line(f"line {LINES - 1}", runs)

    def expect_logged(self, *parts: str) -> str:
        """Wait until a line with these parts was logged, and return it."""
        found: list[str] = []

        def is_logged() -> bool:
            found[:] = [line for line in list(self.logged) if all(part in line for part in parts)]
            return bool(found)

        until(is_logged, lambda: f"{parts} in {self.logged}")
        return found[0]

    def create_file(self, name: str) -> None:
        """Create the file that a module waits for."""
        Path(self.directory.path, name).touch()

    def end(self, timeout: float = 3 * PATIENCE) -> None:
        """Wait for the end, and assert that there was one job and that no process of it is left."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"it does not end; it has logged {self.logged}"
        if self.slurm is not None:
            until(lambda: not self._left(), lambda: f"the end of {self._left()}")
            seen = self.slurm.jobs(self.job.ref.name)
            assert [job.id for job in seen] == [self.id]

    def succeeds(self, timeout: float = 3 * PATIENCE) -> Any:
        """Wait for a success with a complete log, and return the result."""
        self.end(timeout)
        if self.error is not None:
            raise self.error
        self.has_whole_log()
        return self.value

    def fails(self, kind: type[BaseException], *parts: str, timeout: float = 3 * PATIENCE, runs: int = 1) -> Any:
        """Wait for a failure with a complete log, and return the error.

        :param parts: parts of its message, besides those of every message.
        :param runs: how often the module has begun.
        """
        self.end(timeout)
        assert type(self.error) is kind, (self.error, self.value, self.logged)
        message = str(self.error)
        for part in (f"Slurm job {self.id} ({self.job.ref.name})", *parts, f"Its files are in {self.directory.path}"):
            assert part in message, message
        if runs:
            assert "The last lines of stderr:\n" in message, message
            assert "  a warning" in message, message
        self.has_whole_log(runs)
        return self.error

    def has_whole_log(self, runs: int = 1) -> None:
        """Assert that each line was forwarded once for each run of the module, in order, on its own stream."""
        lines = self.stdout.splitlines()
        first = [f"line {number}" for number in range(LINES)]
        assert [line for line in lines if line in first] == first * runs
        assert Counter(self.stderr.splitlines())["a warning"] == runs

    @property
    def stdout(self) -> str:
        return "".join(piece for stream, piece in self.pieces if stream is Stream.STDOUT)

    @property
    def stderr(self) -> str:
        return "".join(piece for stream, piece in self.pieces if stream is Stream.STDERR)

    def _left(self) -> list[str]:
        """Return the remains of the job: in the queue, or as processes."""
        jobs = [str(job) for job in self.slurm.jobs(self.job.ref.name) if job.state not in _OVER]
        return jobs + [str(process) for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("SEWER_ATTEMPT_ID") == self.job.ref.name
        except psutil.Error:
            return False

    def _take(self, stream: Stream, pieces: Sequence[str]) -> None:
        self.pieces += [(stream, piece) for piece in pieces]

    def _note(self, line: str) -> None:
        self.logged.append(line)

    def _to_its_end(self) -> None:
        try:
            self._job = self.run.submit_and_wait()
            self._has_begun.set()
            self.ending = self.run.follow(self._job)
            self.value = self.run.collect(self.ending)
        except BaseException as error:
            self.error = error
        finally:
            self._has_begun.set()


class Jobs:
    """Starts modules as jobs of one cluster, with short poll intervals."""

    def __init__(self, folder: Path, slurm: SlurmCluster | None) -> None:
        self.folder = folder
        self.slurm = slurm
        self._modules = folder / "modules"
        self._modules.mkdir(parents=True)
        self._numbers = itertools.count(1)

    def start(self, source: str, *arguments: str, **settings: Any) -> Followed:
        """Write a module, submit it, and follow it."""
        return Followed(self.slurm, self.plan(source, *arguments, **settings))

    def follow(self, planned: JobSpec, patience: float | None = QUICK) -> Followed:
        """Submit the planned job or reattach to it, and monitor it; Slurm's commands may take so many seconds."""
        return Followed(self.slurm, planned, patience)

    def plan(self, source: str, *arguments: str, **settings: Any) -> JobSpec:
        """Write a module, and plan its job."""
        number = next(self._numbers)
        module = settings.pop("module", f"made_{number}")
        (self._modules / f"made_{number}.py").write_text(_PRELUDE + textwrap.dedent(source))
        where = {name: settings.pop(name) for name in ("python", "workdir") if name in settings}
        fields = {"cluster": "slurm", "poll_interval": 0.3, "max_poll_interval": 0.6, "lost_after": 20.0, **settings}
        return JobSpec(
            instance=TaskInstance("dag", f"run {self.folder.name}", f"task_{number}", -1, "0"),
            task=Task(f"task_{number}", module, args=arguments).with_settings(
                ExecutionSettings.checked(
                    **{"python": sys.executable, "env": {"PYTHONPATH": str(self._modules)}, **where}
                )
            ),
            slurm=SlurmSettings.checked(run_dir=str(self.folder / "runs"), **fields).with_fallback(DEFAULTS),
            secret_env={},
            grace=2.0,
        )


def clusters(patience: float) -> Callable[[str], JobBackend]:
    """Return a factory of backends whose commands may take so many seconds."""
    return lambda kind: LocalBackend() if kind == "local" else SlurmClient(patience=patience)


def until(condition: Callable[[], Any], goal: Callable[[], str], timeout: float = 2 * PATIENCE) -> None:
    """Wait until a condition holds."""
    wait_until(condition, goal, timeout)


@pytest.fixture
def talk_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[SlurmCluster], SlurmCluster]:
    """Return a function that lets this process use a cluster, without state from an earlier test."""

    def talk(slurm: SlurmCluster) -> SlurmCluster:
        monkeypatch.setattr(AccountingQueue, "_all", {})
        for name, value in slurm.env.items():
            monkeypatch.setenv(name, value)
        return slurm

    return talk


@pytest.fixture
def jobs(slurm: SlurmCluster, talk_to: Callable[..., Any], tmp_path: Path) -> Jobs:
    """Return a starter of jobs on a cluster without accounting."""
    return Jobs(tmp_path / "jobs", talk_to(slurm))


@pytest.fixture(params=["slurm", "slurm_accounting"], ids=["without accounting", "with accounting"])
def any_jobs(request: pytest.FixtureRequest, talk_to: Callable[..., Any], tmp_path: Path) -> Iterator[Jobs]:
    """Return a starter of jobs on a cluster, once without and once with accounting."""
    slurm = request.getfixturevalue(request.param)
    yield Jobs(tmp_path / "jobs", talk_to(slurm))
    slurm.restore()


@pytest.fixture
def tracked_jobs(tracked_slurm: SlurmCluster, talk_to: Callable[..., Any], tmp_path: Path) -> Jobs:
    """Return a starter of jobs on a cluster, under each kind of process tracking."""
    return Jobs(tmp_path / "jobs", talk_to(tracked_slurm))


@pytest.fixture
def jobs_on(tmp_path: Path) -> Callable[[SlurmCluster], Jobs]:
    """Return a starter of jobs on a separate cluster."""
    return lambda slurm: Jobs(tmp_path / "jobs", slurm)


@pytest.fixture
def worker() -> Iterator[Callable[..., Worker]]:
    """Return a starter of a process that submits and monitors a job, to be killed at any moment."""
    started: list[Worker] = []

    def start(planned: JobSpec, **limits: int) -> Worker:
        started.append(Worker(planned, **limits))
        started[-1].expect("ready")
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def plan(jobs: Jobs) -> Callable[..., JobSpec]:
    """Return a planner of modules in a DAG that no other test has."""

    def make(source: str, **settings: Any) -> JobSpec:
        planned = jobs.plan(source, **settings)
        return planned._replace(instance=planned.instance._replace(dag_id=f"dag-{uuid.uuid4().hex[:8]}"))

    return make
