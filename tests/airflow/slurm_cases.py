"""Runs of DAGs whose tasks are Slurm jobs, with the checks that all tests share.

These are the number of jobs that Slurm has seen, whether the task log has each line of the modules once and in order,
and whether any process is left running.
"""

from __future__ import annotations

import copy
import difflib
import json
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from .deployment import Airflow
from .rest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.slurm_cluster.client import Job
    from tests.slurm_cluster.cluster import SlurmCluster

CONNECTION = "chaos"
SECRET = "opensesame-4711-of-the-chaos"
JOB_URL = "https://slurm.example/jobs/{job_id}"

#: Writes numbered lines, each with the id of its job, until a file ends it.
MODULE = """
import json, os, sys, time
from pathlib import Path

folder, index = Path(sys.argv[2]), sys.argv[4]
job, number = os.environ["SLURM_JOB_ID"], 0
print("the token is", os.environ["CHAOS_TOKEN"])
while number < 5 or not (folder / "enough").exists():
    time.sleep(0.1)
    if (folder / "silence").exists():
        continue
    print(f"{job} {index} {number}")
    if number % 5 == 0:
        print(f"{job} {index} {number} too", file=sys.stderr)
    number += 1
Path(os.environ["SEWER_RESULT_FILE"]).write_text(json.dumps({"job": job, "lines": number}))
sys.exit((folder / "fails").exists())
"""

DAGS = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

AGAIN = {{"retries": 2}}
DEFERS = {{"deferrable": True}}
WORKER = {{"deferrable": False}}
ALL = dict(
    module="chaos_counts",
    python={python!r},
    env={{"PYTHONPATH": {modules!r}}},
    run_dir="{{{{ params.folder }}}}/runs",
    slurm={{"name": "{{{{ params.name }}}}"}},
    sewer_conn_id={connection!r},
    poll_interval=0.5,
    max_poll_interval=1,
    lost_after=5,
    retry_delay=timedelta(0),  # also delays a task that is cleared while it does not run
)

def arguments(index=0):
    return {{"folder": "{{{{ params.folder }}}}", "index": index}}

def dag(dag_id, **given):
    with DAG(dag_id, schedule=None, params={{"folder": "/nowhere", "name": "no_name"}}, max_active_runs=64):
        SlurmModuleOperator(task_id="job", parameters_and_flags=arguments(), **{{**ALL, **given}})

dag("works", **WORKER, **AGAIN)
dag("works_once", **WORKER)
dag("works_and_keeps", **WORKER, on_kill_action="keep_job")
dag("defers", **DEFERS, **AGAIN)
dag("defers_once", **DEFERS)
dag("defers_and_keeps", **DEFERS, on_kill_action="keep_job")
dag("defers_not_for_long", **DEFERS, execution_timeout=timedelta(seconds=10))
LEARNS = {{"slurm": {{**ALL["slurm"], "mem_gb": 0.125}}, "retry_with": {{"SlurmOutOfMemory": {{"mem_gb": 2.0}}}}}}
dag("works_and_learns", **WORKER, **AGAIN, **LEARNS)
dag("defers_and_learns", **DEFERS, **AGAIN, **LEARNS)
dag("defers_held", **DEFERS, slurm={{**ALL["slurm"], "additional_parameters": {{"hold": True}}}})
with DAG("maps", schedule=None, params={{"folder": "/nowhere", "name": "no_name"}}, max_active_tasks=64):
    SlurmModuleOperator.partial(task_id="job", **{{**ALL, **DEFERS}}).expand(
        parameters_and_flags=[arguments(index) for index in range(10)]
    )
with DAG("shares", schedule=None, params={{"folder": "/nowhere", "name": "no_name"}}, max_active_tasks=4):
    SlurmModuleOperator.partial(task_id="job", array=True, **{{**ALL, **DEFERS}}).expand(
        parameters_and_flags=[arguments(index) for index in range(10)]
    )
"""


def write_project(folder: Path, dags: Path) -> None:
    """Write the module into a folder, and the DAG file that runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    dags.mkdir(parents=True, exist_ok=True)
    (folder / "chaos_counts.py").write_text(MODULE)
    (dags / "chaos.py").write_text(dag_file(modules=str(folder), python=sys.executable))


def dag_file(*, modules: str, python: str) -> str:
    """Return the DAG file, for a folder with the module and an interpreter."""
    return DAGS.format(modules=modules, python=python, connection=CONNECTION)


def connection() -> dict[str, Any]:
    """Return the connection of all tasks."""
    return {"conn_type": "sewer", "extra": {"secret_env": {"CHAOS_TOKEN": SECRET}, "job_url": JOB_URL}}


class Stage:
    """An Airflow, and the cluster that its processes find; another cluster can take its place.

    :param airflow: the Airflow, not yet started.
    :param links: a folder whose links lead to the cluster.
    """

    def __init__(self, home: Path, links: Path) -> None:
        self._links = links
        links.mkdir()
        path = [str(links / "in-front"), str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"]
        env = {"SLURM_CONF": str(links / "slurm.conf"), "PATH": os.pathsep.join(path)}
        self.airflow = Airflow(home, env, {CONNECTION: connection()})
        self.slurm: SlurmCluster | None = None

    def lead_to(self, cluster: SlurmCluster) -> None:
        """Let all commands that Airflow's processes start from now on talk to this cluster."""
        self.slurm = cluster
        for name, target in (("slurm.conf", cluster.conf), ("in-front", cluster.wrapper_folder)):
            fresh = self._links / f".{name}"
            fresh.symlink_to(target)
            fresh.rename(self._links / name)


class Case:
    """One run of a DAG of one task."""

    task_id = "job"

    def __init__(self, stage: Stage, folder: Path, dag_id: str, map_index: int = -1) -> None:
        self.airflow, self.slurm = stage.airflow, stage.slurm
        self.folder = folder
        self._make_folder()
        self.name = self.folder.name
        self.dag_id = dag_id
        self.map_index = map_index
        self.run_id = self.airflow.trigger(dag_id, {"folder": str(self.folder), "name": self.name})

    def place(self, map_index: int) -> Case:
        """Return another place of the same mapped task."""
        other = copy.copy(self)
        other.map_index = map_index
        return other

    def __repr__(self) -> str:
        return f"{self.dag_id} {self.run_id} ({self.name})"

    @property
    def key(self) -> tuple[str, str, str]:
        """Return DAG id, run id and task id."""
        return self.dag_id, self.run_id, self.task_id

    # Actions --------------------------------------------------------------------------------------------------------

    def send(self, word: str) -> None:
        """Send the module a command: end ("enough"), fail in the end ("fails"), or write nothing ("silence")."""
        (self.folder / word).touch()

    def withdraw(self, word: str) -> None:
        """Withdraw a command."""
        (self.folder / word).unlink()

    def enough(self) -> None:
        """Let the module come to its end."""
        self.send("enough")

    @contextmanager
    def silence(self) -> Iterator[None]:
        """Let the module run without writing anything, and wait until all it has written is logged.

        A process that is killed right after logging a line may not have saved its log offset.
        """
        self.send("silence")
        self.until(lambda: len(self.logged()) == sum(map(len, self.written().values())), "all lines logged")
        yield
        self.withdraw("silence")

    def until(self, condition: Callable[[], Any], event: str, timeout: float = PATIENCE) -> Any:
        """Wait for something."""
        return self.airflow.until(condition, f"{self}: {event}", timeout)

    def runs(self, jobs: int = 1) -> int:
        """Wait until the latest of so many jobs writes its lines, and return its id."""
        return self.until(lambda: len(self.written()) == jobs and all(self.written().values()), f"job {jobs} to run")

    def is_deferred(self) -> None:
        """Wait until the trigger has logged some of the job's output."""
        self.until(lambda: self.state() == "deferred" and len(self.logged()) > 1, "lines logged by the trigger")

    def is_followed(self) -> None:
        """Wait until a worker has logged some of the job's output."""
        self.until(lambda: self.state() == "running" and len(self.logged(self.tries())) > 1, "lines logged by a worker")

    def ends(self, *states: str, timeout: float = PATIENCE) -> None:
        """Wait until the task has ended in one of these states; fail on any other end."""
        self.airflow.wait_for_state(*self.key, states, timeout, map_index=self.map_index)

    # Observations ---------------------------------------------------------------------------------------------------

    def state(self) -> str | None:
        """Return the task's state."""
        return self.airflow.state(*self.key, self.map_index)

    def tries(self) -> int:
        """Return the number of the task's last try."""
        return self.airflow.try_number(*self.key, self.map_index)

    def jobs(self) -> list[Job]:
        """Return all jobs that Slurm has seen of it."""
        return self.slurm.jobs(f"{self.name}-")

    def logged(self, *tries: int, stream: str = "stdout") -> list[str]:
        """Return the lines of the module in the log of these tries, or of all."""
        numbers = tries or range(1, self.tries() + 1)
        every = [self.airflow.lines(*self.key, number, self.map_index, (stream,)) for number in numbers]
        return [line for lines in every for line in lines]

    def written(self, stream: str = "stdout") -> dict[str, list[str]]:
        """Return the jobs' output by their job directories, oldest first."""
        task = self.task_id if self.map_index < 0 else f"{self.task_id}/map-{self.map_index}"
        files = self.folder.glob(f"runs/{self.dag_id}/*/{task}/*/{stream}.log")
        files = sorted(files, key=lambda file: int(file.parent.name))
        return {file.parent.name: file.read_text().splitlines() for file in files}

    def result(self) -> Any:
        """Return the XCom of the task."""
        return self.airflow.xcom(*self.key, map_index=self.map_index)

    def text_of_log(self, *tries: int) -> str:
        """Return the text of the log of these tries, or of all."""
        numbers = tries or range(1, self.tries() + 1)
        content = [line for number in numbers for line in self.airflow.log(*self.key, number, self.map_index)]
        return "\n".join(json.dumps(line) for line in content)

    def processes(self) -> list[psutil.Process]:
        """Return the processes of its modules."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if str(self.folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    # Checks ---------------------------------------------------------------------------------------------------------

    def earlier_log_is_true(self, *, try_number: int = 1) -> None:
        """Check that the log of an interrupted try is a prefix of its job's output.

        A line can stand there twice: a triggerer that is stopped before it has recorded the line leaves it to the next.
        """
        written = list(self.written().values())[try_number - 1]
        logged = list(dict.fromkeys(self.logged(try_number)))
        assert 1 < len(logged) <= len(written), (logged, written)
        assert logged[1:] == written[1 : len(logged)]

    def is_over(self, timeout: float = PATIENCE) -> None:
        """Wait until no job of it is in the queue and no process is running."""
        self.until(lambda: not self.processes() and not self._queued(), "nothing left running", timeout)

    def has_seen(self, *states: str) -> None:
        """Check that Slurm has seen exactly these jobs, which ended in these states.

        A restarted controller learns of an end seconds after the exit record was read. The script of a cancelled job
        ends by itself, and Slurm may record that end, FAILED, instead.
        """

        def ended_so() -> bool:
            seen = [job.state for job in self.jobs()]
            return len(seen) == len(states) and all(
                one == state or (state, one) == ("CANCELLED", "FAILED") for one, state in zip(seen, states, strict=True)
            )

        with suppress(pytest.fail.Exception):
            self.until(lambda: ended_so() or len(self.jobs()) > len(states), f"jobs that are {states}", 60)
        assert ended_so(), f"{[job.state for job in self.jobs()]}, not {states}: {self.text_of_log()}"

    def log_is_complete(self, *tries: int) -> None:
        """Check that the log of these tries has each line of the last job once and in order, the secret masked."""
        for stream in ("stdout", "stderr"):
            lines = [line.replace(SECRET, "***") for line in list(self.written(stream).values())[-1]]
            logged = self.logged(*tries, stream=stream)
            assert logged == lines, "\n".join([str(self), *difflib.ndiff(lines, logged), self.text_of_log()])

    def _make_folder(self) -> None:
        self.folder.mkdir(exist_ok=True)

    def _queued(self) -> str:
        return self.slurm.command("squeue", "-h", "--name", ",".join(job.name for job in self.jobs()) or "none")


def succeeded(case: Case, *, earlier: tuple[str, ...] = (), is_remembered: bool = True) -> None:
    """Check that the task succeeded, with all its jobs, results and log lines.

    :param earlier: the states of the jobs before a user cleared the task.
    :param is_remembered: whether Slurm still knows the job; a controller that was killed may not.
    """
    case.ends("success")
    if is_remembered:
        case.has_seen(*earlier, "COMPLETED")
    runs = list(case.written().values())
    assert len(runs) == len(earlier) + 1
    numbers = [line for line in runs[-1] if not line.startswith("the token")]
    assert case.result() == {"job": numbers[0].split()[0], "lines": len(numbers)}
    case.is_over()
    case.log_is_complete(*([case.tries()] if earlier else []))


def check_all_reattached(going_on: Case, ending: Case, failing: Case) -> None:
    """Check that a new triggerer reattaches to three deferred jobs in the same try, with no line repeated or lost.

    :param going_on: its job still runs.
    :param ending: its job has succeeded meanwhile.
    :param failing: its job has failed meanwhile; its task has no retries.
    """
    known = len(going_on.logged())
    going_on.until(lambda: len(going_on.logged()) > known, "the new triggerer to log")
    going_on.enough()
    for case in (going_on, ending):
        succeeded(case)
        assert case.tries() == 1
    failing.ends("failed")
    failing.has_seen("FAILED")
    failing.log_is_complete()
