"""Self-test of the deployment used by other tests: parts are killed and restarted, and runs continue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from .deployment import PARTS, Airflow, still_running
from .rest import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

TRIGGERS = """
import asyncio, os
from airflow.triggers.base import BaseTrigger, TriggerEvent

class FileTrigger(BaseTrigger):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def serialize(self):
        return "deployment_triggers.FileTrigger", {"path": self.path}

    async def run(self):
        with open(self.path + ".watched", "a") as file:
            file.write(f"{os.getpid()}\\n")
        while not os.path.exists(self.path):
            await asyncio.sleep(0.1)
        yield TriggerEvent(os.getpid())
"""

DAGS = """
import os, time
from datetime import timedelta
from airflow.sdk import DAG, BaseOperator, task
from deployment_triggers import FileTrigger

class Deferred(BaseOperator):
    template_fields = ("path",)

    def __init__(self, path, **kwargs):
        super().__init__(**kwargs)
        self.path = path

    def execute(self, context):
        self.defer(trigger=FileTrigger(self.path), method_name="finish", timeout=timedelta(minutes=10))

    def finish(self, context, event):
        return event

@task(retries=1, retry_delay=timedelta(0))
def first_try_waits(path, ti=None):
    print("try", ti.try_number)
    while ti.try_number == 1 and not os.path.exists(path):
        time.sleep(0.1)
    return ti.try_number

@task
def done():
    return "done"

with DAG("defers", schedule=None, params={"path": ""}):
    Deferred(task_id="wait", path="{{ params.path }}") >> done()
with DAG("waits", schedule=None, params={"path": ""}):
    first_try_waits("{{ params.path }}") >> done()
with DAG("many", schedule=None, max_active_tasks=64):
    @task
    def one(number):
        return number
    one.expand(number=list(range(24)))
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    modules = tmp_path_factory.mktemp("modules")
    (modules / "deployment_triggers.py").write_text(dedent(TRIGGERS))
    (home / "dags").mkdir()
    (home / "dags" / "dags.py").write_text(dedent(DAGS))
    with Airflow(home, {"PYTHONPATH": str(modules)}) as airflow:
        yield airflow


def watchers(path):
    """Return the processes that have run the trigger, in order; none before it has been started."""
    watched = path.with_name(f"{path.name}.watched")
    return [int(line) for line in watched.read_text().split()] if watched.exists() else []


@pytest.mark.parametrize("part", PARTS)
def test_restart_part_restarts_each_part(airflow, part):
    """All its processes are others afterwards."""
    # Comes before the tests that kill a supervisor: the scheduler above it may not end on SIGTERM.
    before = airflow.processes(part)
    airflow.restart_part(part)
    assert not still_running(before)
    assert airflow.processes(part)


def test_killed_triggerer_resumes_its_triggers_after_restart(airflow, tmp_path):
    """Within a minute of its start the new triggerer runs the trigger of the old one, and the task completes."""
    path = tmp_path / "file"
    run_id = airflow.trigger("defers", {"path": str(path)})
    (first,) = airflow.until(lambda: watchers(path), "the trigger to run")
    processes = airflow.processes("triggerer")
    assert first in {process.pid for process in processes}
    killed = time.monotonic()
    airflow.kill_part("triggerer")
    assert not still_running(processes)
    airflow.start_part("triggerer")
    print(f"triggerer healthy {time.monotonic() - killed:.1f} s after its kill")
    _, second = airflow.until(lambda: len(watchers(path)) == 2 and watchers(path), "the trigger to be resumed", 60)
    print(f"trigger resumed {time.monotonic() - killed:.1f} s after the kill")
    path.touch()
    airflow.wait_for_state("defers", run_id, "done", "success")
    assert airflow.xcom("defers", run_id, "wait") == second
    assert airflow.try_number("defers", run_id, "wait") == 1


@pytest.mark.parametrize("workers", [True, False])
def test_killed_scheduler_finishes_the_run_after_restart(airflow, tmp_path, workers):
    """With its workers dead or not: its running task is run again, then the next one; the first try is ended."""
    run_id = airflow.trigger("waits", {"path": str(tmp_path / "file")})
    pid, supervisor = (
        find("waits", run_id, "first_try_waits") for find in (airflow.worker_pid, airflow.supervisor_pid)
    )
    processes = [psutil.Process(pid), psutil.Process(supervisor)]
    killed = time.monotonic()
    airflow.kill_part("scheduler", workers=workers)
    assert still_running(processes) == ([] if workers else processes)
    airflow.start_part("scheduler")
    print(f"scheduler healthy {time.monotonic() - killed:.1f} s after its kill")
    airflow.wait_for_state("waits", run_id, "done", "success")
    print(f"run done {time.monotonic() - killed:.1f} s after the kill")
    airflow.until(lambda: not still_running(processes[:1]), "the first try to be ended")
    assert airflow.xcom("waits", run_id, "first_try_waits") == 2


@pytest.mark.parametrize("which", ["worker_pid", "supervisor_pid"])
def test_killed_task_process_is_retried(airflow, tmp_path, which):
    """Airflow notices within a minute, whether the task's own process is gone or the one above it."""
    run_id = airflow.trigger("waits", {"path": str(tmp_path / "file")})
    pid = getattr(airflow, which)("waits", run_id, "first_try_waits")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    airflow.until(lambda: airflow.try_number("waits", run_id, "first_try_waits") == 2, "Airflow to notice", 60)
    print(f"{which} killed: noticed after {time.monotonic() - killed:.1f} s")
    airflow.wait_for_state("waits", run_id, "done", "success")
    assert airflow.xcom("waits", run_id, "first_try_waits") == 2


def test_sqlite_database_handles_all_parts(airflow):
    """Eight workers at once, and no part finds the database locked."""
    started = time.monotonic()
    runs = [airflow.trigger("many") for _ in range(3)]
    airflow.until(
        lambda: {airflow.run_state("many", run) for run in runs} == {"success"}, "all runs to end", 2 * PATIENCE
    )
    print(f"72 tasks in {time.monotonic() - started:.1f} s")
    assert [airflow.xcom("many", runs[2], "one", map_index=index) for index in (0, 23)] == [0, 23]
    assert "database is locked" not in airflow.tails(10**9)


def test_cleared_task_runs_again(airflow, tmp_path):
    """Both tries have their own log, and the run comes to its end a second time."""
    run_id = airflow.trigger("waits", {"path": str(tmp_path)})
    # Airflow does not reschedule a task that is cleared just when its run ends.
    airflow.until(lambda: airflow.run_state("waits", run_id) == "success", "the end of the run")
    airflow.clear("waits", run_id, ["first_try_waits", "done"])
    airflow.until(lambda: airflow.try_number("waits", run_id, "done") == 2, "the second try")
    airflow.wait_for_state("waits", run_id, "done", "success")
    printed = [[line["event"] for line in airflow.log("waits", run_id, "first_try_waits", number)] for number in (1, 2)]
    assert ["try 1" in printed[0], "try 2" in printed[0], "try 2" in printed[1]] == [True, False, True]
    assert airflow.links("waits", run_id, "done") == {}


def test_deferred_task_marked_failed_fails(airflow, tmp_path):
    """And so does the one that waits for it."""
    path = tmp_path / "file"
    run_id = airflow.trigger("defers", {"path": str(path)})
    airflow.until(lambda: watchers(path), "the trigger to run")
    airflow.mark("defers", run_id, "wait", "failed")
    airflow.wait_for_state("defers", run_id, "done", "upstream_failed")
    assert airflow.state("defers", run_id, "wait") == "failed"


def test_killed_test_session_leaves_no_process(tmp_path):
    """kill -9 leaves the session no time to stop its processes."""
    code = """
import os, pathlib, sys
from tests.airflow.deployment import PARTS, Airflow
airflow = Airflow(pathlib.Path(sys.argv[1]))
airflow.start()
print(*[process.pid for part in PARTS for process in airflow.processes(part)], flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == -signal.SIGKILL
    pids = list(map(int, done.stdout.split()))
    assert len(pids) > len(PARTS)
    deadline = time.monotonic() + PATIENCE
    while alive := [pid for pid in pids if running(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def running(pid):
    """Return whether a process has not ended."""
    return psutil.pid_exists(pid) and bool(still_running([psutil.Process(pid)]))
