"""Process that submits a job as a worker does, to be killed at any moment; and its visible effects."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.slurm.job_directory import JobDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_sewer.slurm.job_spec import JobSpec
    from tests.slurm_cluster.cluster import SlurmCluster

#: Seconds that Slurm's commands may take here, so that a submission of a dead process is over soon.
QUICK = 4.0

OVER = {"COMPLETED", "FAILED", "CANCELLED"}

_SOURCE = """
import json, resource, signal, sys
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.local_backend import LocalBackend
from airflow_provider_sewer.slurm.job_spec import JobSpec
from airflow_provider_sewer.slurm.job_runner import JobRunner

fields, quick = json.loads(sys.argv[1]), float(sys.argv[2])
fields["instance"] = TaskInstance(*fields["instance"])
settings = ExecutionSettings(**fields.pop("settings"))
fields["task"] = Task("task", fields.pop("module"), args=fields.pop("arguments")).with_settings(settings)
fields["slurm"] = SlurmSettings(**fields["slurm"])
put = lambda line: print(line, flush=True)
clusters = lambda kind: LocalBackend() if kind == "local" else SlurmClient(patience=quick)
run = JobRunner(JobSpec(**fields), lambda *_: None, put, clusters=clusters)
signal.signal(signal.SIGTERM, lambda *_: (run.cancel(), put("told to stop")))
put("ready")
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    job = run.submit_and_wait()
    put("begun " + job.ref.id)
    run.collect(run.follow(job))
except Exception as error:
    put(type(error).__name__ + ": " + str(error))
"""


class Worker:
    """A process that begins a job and follows it.

    :param planned: its job.
    :param most_bytes: how long a file may get that it writes.
    """

    def __init__(self, planned: JobSpec, most_bytes: int | None = None) -> None:
        fields = planned._asdict()
        task = fields.pop("task")
        fields |= {
            "module": task.module,
            "arguments": task.arguments(),
            "settings": {**task.settings._asdict(), "env": dict(task.settings.env)},
            "slurm": {**planned.slurm._asdict(), "slurm": dict(planned.slurm.slurm)},
        }
        limit = [] if most_bytes is None else [str(most_bytes)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SOURCE, json.dumps(fields), str(QUICK), *limit],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def expect(self, part: str, timeout: float = 120, *, times: int = 1) -> str:
        """Wait until it has printed so many lines with this in them, and return the first."""

        def found() -> list[str]:
            return [line for line in self._lines if part in line]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= times, timeout), (
                f"timed out waiting for {part!r}; received {self._lines}"
            )
            return found()[0]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause it for the block."""
        self._process.send_signal(signal.SIGSTOP)
        yield
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self.wait()

    def stop(self) -> None:
        """Ask it to end by SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> list[str]:
        """Wait for its end, and return its output."""
        self._process.wait(120)
        self._reader.join(120)
        return self._lines

    def close(self) -> None:
        """Leave nothing of it."""
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        self._process.stdout.close()

    def _read(self) -> Any:
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()


def seen(slurm: SlurmCluster, planned: JobSpec) -> list[str]:
    """Return the ids of all jobs that Slurm has ever had of a task."""
    return [job.id for job in slurm.jobs(planned.instance.dag_id)]


def folders(planned: JobSpec) -> list[JobDirectory]:
    """Return the job directories of a task."""
    found = sorted(Path(planned.slurm.run_dir or "").glob("*/*/*/*"), key=lambda path: path.stat().st_mtime)
    return [JobDirectory(str(path)) for path in found]


def let_go(planned: JobSpec) -> None:
    """Let all modules go on that wait for it."""
    for directory in folders(planned):
        Path(directory.path, "go").touch()


def real(slurm: SlurmCluster, name: str) -> str:
    """Return the path of a command behind its wrapper."""
    path = slurm.env["PATH"].partition(":")[2]
    return str(shutil.which(name, path=path))
