"""`airflow dags test` in a process of its own that gets SIGTERM or Ctrl-C: the run ends, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.slurm_cluster.cluster import SlurmCluster

DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.paths import ExternalPathSensor
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

with DAG({dag_id!r}, schedule=None):
    for name in ("job", "other"):
        {operator}(task_id=name, retries=3, retry_delay=timedelta(seconds={delay}), **{arguments!r})
"""
# Prints a line, then waits or fails.
WAITS = """
import os, sys, time
open(os.path.join(os.path.dirname(__file__), f"started-{os.getpid()}"), "w").close()
print("the module is here", flush=True)
os.path.exists(os.path.join(os.path.dirname(__file__), "fails")) and sys.exit(1)
time.sleep(600)
"""
# Seconds for the grace of a job or module, twice, on a busy machine; without an end of the run it is half an hour.
SOON = 20.0
REFUSES = 'echo "sbatch: error: Batch job submission failed: Unable to contact slurm controller" >&2; exit 1'


@dataclass
class DagsTest:
    """One `airflow dags test`.

    :param process: its process.
    :param log: its output.
    :param folder: the folder of its module.
    """

    process: subprocess.Popen[bytes]
    log: Path
    folder: Path

    def wait_for_output(self, word: str, seconds: float = 60) -> None:
        """Wait until its output has this in it."""
        deadline = time.monotonic() + seconds
        while word not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"no {word!r} in {self.log.read_text()}"
            time.sleep(0.05)

    def ends(self, number: signal.Signals, seconds: float) -> str:
        """Send a signal, and return the output of the process, which fails.

        The run is over after so many seconds; Airflow itself then takes some more until its process ends.
        """
        self.process.send_signal(number)
        deadline = time.monotonic() + seconds
        ends = re.compile("^(DagRun failed|KeyboardInterrupt)", re.MULTILINE)
        while self.process.poll() is None and not ends.search(self.log.read_text()):
            assert time.monotonic() < deadline, f"not over {seconds} s after {number.name}: {self.log.read_text()}"
            time.sleep(0.05)
        assert self.process.wait(60) != 0
        return self.log.read_text()

    @property
    def started(self) -> int:
        """Return how many modules have been started."""
        return len(list(self.folder.glob("started-*")))


@pytest.fixture
def dags_test(airflow_home: Path, on_slurm: SlurmCluster, tmp_path: Path) -> Iterator[Callable[..., DagsTest]]:
    """Return a function that starts `airflow dags test` with two tasks that do not depend on each other."""
    runs: list[DagsTest] = []

    def start(operator: str = "SlurmModuleOperator", delay: float = 0, **arguments: Any) -> DagsTest:
        folder = tmp_path / "dags"
        folder.mkdir()
        dag_id = f"interrupted_{time.time_ns():x}"
        (folder / "waits.py").write_text(WAITS)
        if operator != "ExternalPathSensor":
            arguments |= {"module": "waits", "python": sys.executable, "env": {"PYTHONPATH": str(folder)}}
        if operator == "SlurmModuleOperator":
            arguments |= {"run_dir": str(tmp_path / "runs"), "cluster": "slurm", "poll_interval": 0.5}
        text = DAG_FILE.format(dag_id=dag_id, operator=operator, delay=delay, arguments=arguments)
        (folder / "interrupted.py").write_text(text)
        log = tmp_path / "log"
        env = {**os.environ, "AIRFLOW_HOME": str(airflow_home), "AIRFLOW__CORE__DAGS_FOLDER": str(folder)}
        with log.open("wb") as file:
            command = [sys.executable, "-m", "airflow", "dags", "test", dag_id]
            process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        runs.append(DagsTest(process, log, folder))
        return runs[-1]

    yield start
    for run in runs:
        run.process.kill()
        run.process.wait()


def queued(slurm: SlurmCluster) -> list[str]:
    """Return the jobs that wait or run."""
    return slurm.command("squeue", "-h", "-t", "PENDING,RUNNING", "-o", "%i").split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_dags_test_sigterm_during_submission_retry_ends_the_run(dags_test, on_slurm, number):
    """The controller is away, which is waited for without a limit; no other try or task of the run submits a job."""
    on_slurm.put_in_front("sbatch", REFUSES)
    run = dags_test()
    run.wait_for_output("Not submitted yet, trying again")
    submissions = on_slurm.counted("sbatch")
    text = run.ends(number, SOON)
    assert "Interrupted by SIGTERM or SIGINT; not retrying" in text
    assert "DagRun failed" in text
    assert on_slurm.counted("sbatch") == submissions
    assert not queued(on_slurm)


def test_dags_test_sigterm_during_sbatch_cancels_the_job(dags_test, on_slurm):
    """A job has been created, and its id is not known yet: it is looked up by its name."""
    real = shutil.which("sbatch", path=os.defpath + ":/usr/local/bin")
    on_slurm.put_in_front("sbatch", f'{real} --hold "$@"; echo submitted >&2; sleep 60')
    run = dags_test()
    on_slurm.until(lambda: queued(on_slurm), "the job")
    run.ends(signal.SIGTERM, SOON)
    assert not queued(on_slurm)


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "triggerer"])
def test_dags_test_sigterm_cancels_the_running_job(dags_test, on_slurm, deferrable):
    """Also while a trigger follows it, which Airflow runs in the same process."""
    run = dags_test(deferrable=deferrable)
    run.wait_for_output("the module is here")
    run.ends(signal.SIGTERM, SOON)
    on_slurm.until(lambda: not queued(on_slurm), "no job")
    assert run.started == 1


def test_dags_test_sigterm_between_two_tries_ends_the_run(dags_test, on_slurm):
    """Airflow waits for the time of the next try, and its own handler for SIGTERM has no effect then."""
    run = dags_test(delay=3600)
    (run.folder / "fails").touch()
    run.wait_for_output("No tasks to run")
    run.ends(signal.SIGTERM, SOON)
    assert run.started == 2


def test_dags_test_sigterm_terminates_the_python_module(dags_test):
    """It runs below the process, and no other try starts it again."""
    run = dags_test("PythonModuleOperator")
    run.wait_for_output("the module is here")
    text = run.ends(signal.SIGTERM, SOON)
    assert "DagRun failed" in text
    pids = [int(path.name.partition("-")[2]) for path in run.folder.glob("started-*")]
    assert len(pids) == 1
    assert not psutil.pid_exists(pids[0])


def test_dags_test_sigterm_during_sensor_poke_ends_the_run(dags_test):
    """A sensor waits for a week, and Airflow's own handler for SIGTERM has no effect on it."""
    run = dags_test("ExternalPathSensor", path="/never/there", deferrable=False, mode="poke")
    run.wait_for_output("Looking for /never/there")
    assert "DagRun failed" in run.ends(signal.SIGTERM, SOON)


def test_dags_test_sigterm_during_sensor_reschedule_ends_the_run(dags_test):
    """Airflow itself waits for the time of the next check."""
    run = dags_test("ExternalPathSensor", path="/never/there", deferrable=False)
    run.wait_for_output("No tasks to run")
    run.ends(signal.SIGTERM, SOON)
