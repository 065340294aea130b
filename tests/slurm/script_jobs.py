"""Pytest plugin: jobs that run a script, observed only through the cluster and their job directory."""

from __future__ import annotations

import itertools
import json
import textwrap
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_sewer.core.call import module_call
from airflow_provider_sewer.slurm.backend import JobRef
from airflow_provider_sewer.slurm.client import SlurmClient as OurSlurm
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_records import ExitRecord
from airflow_provider_sewer.slurm.job_script import JobScript
from airflow_provider_sewer.slurm.local_backend import LocalBackend
from airflow_provider_sewer.slurm.states import ENDED
from tests.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.slurm_cluster.cluster import SlurmCluster

PRINT_ARGUMENTS = "import json, sys; print(json.dumps(sys.argv[1:]))"
PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"
# A module that waits for a file.
WAIT = """
    import os, time
    print("here", flush=True)
    while not os.path.exists(os.environ["SEWER_RESULT_FILE"].replace("result.json", "go")):
        time.sleep(0.05)
"""
# Three generations: the module, a child, and a grandchild in a session of its own. All of them ignore SIGTERM.
DEAF_TREE = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0 and os.fork() == 0:
        os.setsid()
        print("all here", flush=True)
    time.sleep(4711)
"""

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class ScriptJob:
    """A job and its job directory."""

    ref: JobRef
    directory: JobDirectory
    cluster: Any

    @property
    def stdout(self) -> str:
        return _text(self.directory.stdout)

    @property
    def stderr(self) -> str:
        return _text(self.directory.stderr)

    @property
    def state(self) -> str:
        return self.cluster.poll([self.ref])[self.ref].state

    def expect_output(self, word: str, timeout: float = PATIENCE) -> None:
        """Wait until a word is in its output."""
        wait_until(lambda: word in self.stdout, f"{word!r} of {self.ref}", timeout)

    def create_file(self, name: str) -> None:
        """Create a file in its job directory, for a module that waits for it."""
        Path(self.directory.path, name).touch()

    def end(self) -> ExitRecord | None:
        """Wait for its end and return the record of it, if there is one."""
        wait_until(lambda: self.state in ENDED, f"the end of {self.ref}")
        return self.directory.read_exit()

    def record(self) -> ExitRecord:
        """Wait for its end and return the record of it."""
        record = self.end()
        assert record is not None, f"{self.stdout}\n{self.stderr}"
        return record

    def output(self) -> Any:
        """Wait for its success, and return its output, parsed as JSON."""
        record = self.record()
        assert record.is_success, f"{record}\n{self.stdout}\n{self.stderr}"
        return json.loads(self.stdout)


class ScriptJobs:
    """Modules written on the spot, and jobs that run them."""

    def __init__(self, folder: Path, python: Path, cluster: Any) -> None:
        self.folder = folder
        self.python = python
        self.cluster = cluster

    def script(self, source: str, *arguments: str, **fields: Any) -> JobScript:
        """Write a module and return the script of a job that runs it."""
        modules = self.folder / "modules"
        modules.mkdir(exist_ok=True, parents=True)
        module = f"made_{next(_NUMBERS)}"
        (modules / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        env = {"PYTHONPATH": str(modules), **fields.pop("env", {})}
        defaults = {
            "name": f"a job of {module}-{time.time_ns():x}",
            "python": str(self.python),
            "workdir": None,
            "secret_env": {},
            "requeue": False,
            "resources": {},
            "grace": 1.0,
        }
        return JobScript(**{**defaults, "call": module_call(module, arguments), "env": env, **fields})

    def directory(self, name: str = "") -> JobDirectory:
        """Create a job directory."""
        directory = JobDirectory(str(self.folder / (name or f"run-{next(_NUMBERS)}")))
        directory.create()
        return directory

    def submit(self, script: JobScript, directory: JobDirectory | None = None) -> ScriptJob:
        """Write a script into a job directory and submit it."""
        directory = directory or self.directory()
        script.write(directory)
        return self.again(directory, script.name)

    def again(self, directory: JobDirectory, name: str) -> ScriptJob:
        """Submit the script in a job directory."""
        return ScriptJob(JobRef(self.cluster.submit(directory, name).id, name, directory.path), directory, self.cluster)

    def start(self, source: str, *arguments: str, **fields: Any) -> ScriptJob:
        """Write a module and submit a job that runs it."""
        return self.submit(self.script(source, *arguments, **fields))


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an interpreter that has nothing but the standard library."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True, with_pip=False)
    return folder / "bin" / "python"


@pytest.fixture
def cluster_jobs(slurm: SlurmCluster, tmp_path: Path, bare_python: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptJobs:
    """Return a starter of jobs on the cluster."""
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    return ScriptJobs(tmp_path, bare_python, OurSlurm())


@pytest.fixture
def local_jobs(tmp_path: Path, bare_python: Path) -> ScriptJobs:
    """Return a starter of detached processes of this machine."""
    return ScriptJobs(tmp_path, bare_python, LocalBackend())


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
