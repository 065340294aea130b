"""A complete Airflow, driven over REST: logs and states, and the processes left after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
from textwrap import dedent

import psutil
import pytest

from . import lazy_tasks_case
from .deployment import Airflow
from .rest import PATIENCE

SECRET = "open-sesame-4711"

JOB = """
import os, subprocess, sys, time

if sys.argv[1:] == ["--talk"]:
    print("a line on stdout [with brackets]")
    print("a line on stderr", file=sys.stderr)
    print("the secret is", os.environ["KEY"], "line two is", os.environ["PEM"].splitlines()[1])
    print("done")
else:
    sleeper = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(900)"]
    child = subprocess.Popen(sleeper, start_new_session=True)
    with open(os.environ["FIFO"], "w") as fifo:
        fifo.write(f"{os.getppid()} {os.getpid()} {child.pid}")
    time.sleep(900)
"""

DAGS = """
import os, sys
from airflow.sdk import DAG
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.paths import ExternalPathSensor

here = os.path.dirname(__file__)
common = dict(module="job", python=sys.executable, sewer_conn_id="s")
with DAG("talks", schedule=None):
    PythonModuleOperator(task_id="job", parameters_and_flags={"talk": True}, env={"PYTHONPATH": here}, **common)
with DAG("sleeps", schedule=None, params={"fifo": ""}):
    env = {"PYTHONPATH": here, "FIFO": "{{ params.fifo }}"}
    PythonModuleOperator(task_id="job", env=env, termination_grace_period=2, **common)
with DAG("looks", schedule=None, params={"path": ""}):
    ExternalPathSensor(task_id="wait", path="{{ params.path }}", poke_interval=10, timeout=900)
with DAG("waits", schedule=None, params={"path": ""}):
    ExternalPathSensor(task_id="wait", path="{{ params.path }}", deferrable=True, poke_interval=10, timeout=900)
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "job.py").write_text(dedent(JOB))
    (home / "dags" / "dags.py").write_text(dedent(DAGS))
    for name, text in (("steps", lazy_tasks_case.STEPS), ("flow", lazy_tasks_case.FLOW), ("dag", lazy_tasks_case.DAG)):
        (home / "dags" / f"{name}.py").write_text(text)
    (home / "dags" / "work").mkdir()
    (home / "dags" / ".airflowignore").write_text("job.py\nsteps.py\nflow.py\nruns\nwork\n")
    extra = {"secret_env": json.dumps({"KEY": SECRET, "PEM": "-----BEGIN\nsecond-line-of-the-key"})}
    with Airflow(home, connections={"s": {"conn_type": "sewer", "extra": extra}}) as airflow:
        yield airflow


@pytest.fixture
def sleeping(airflow, tmp_path):
    """Start the task that sleeps; return its run and its worker's, module's and grandchild's processes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    run_id = airflow.trigger("sleeps", {"fifo": str(fifo)})
    # Opened for both, so that a task which never comes is a failure here and not a wait for ever.
    descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        output = airflow.until(lambda: _read(descriptor), "the module to start")
    finally:
        os.close(descriptor)
    return run_id, [psutil.Process(int(pid)) for pid in output.split()]


def test_rest_log_has_every_line_per_stream_and_no_secret(airflow):
    """The module's output is in the task's log; the connection's secrets are not."""
    run_id = airflow.trigger("talks")
    airflow.wait_for_state("talks", run_id, "job", "success")
    written = airflow.lines("talks", run_id, "job", streams=["stdout"])
    assert written == ["a line on stdout [with brackets]", "the secret is *** line two is ***", "done"]
    assert airflow.lines("talks", run_id, "job", streams=["stderr"]) == ["a line on stderr"]
    assert SECRET not in json.dumps(airflow.log("talks", run_id, "job"))
    assert SECRET not in "".join(path.read_text() for path in (airflow.home / "logs").rglob("*.log"))


def test_external_path_sensor_deferrable_waits_in_the_triggerer(airflow, tmp_path):
    """The wait occupies no worker; when the path exists, the task resumes and logs it."""
    path = tmp_path / "delivery"
    run_id = airflow.trigger("waits", {"path": str(path)})
    airflow.wait_for_state("waits", run_id, "wait", "deferred")

    def is_in_triggerer():
        return any(f"{run_id}/wait" in line["event"] and "starting" in line["event"] for line in log())

    def log():
        return airflow.log("waits", run_id, "wait")

    # The scheduler fails a task that is queued again before the executor has reported its first end.
    airflow.until(is_in_triggerer, "the trigger to start")
    path.mkdir()
    airflow.wait_for_state("waits", run_id, "wait", "success")
    output = [line["event"] for line in log()]
    assert f"Looking for {path}" in output
    assert f"Found {path}" in output


def test_external_path_sensor_is_rescheduled_by_default(airflow, tmp_path):
    """Between two checks the task is not running; the log of each check names the start and the end of the wait."""
    path = tmp_path / "delivery"
    run_id = airflow.trigger("looks", {"path": str(path)})
    airflow.wait_for_state("looks", run_id, "wait", "up_for_reschedule")
    path.mkdir()
    airflow.wait_for_state("looks", run_id, "wait", "success")
    output = [line["event"] for line in airflow.log("looks", run_id, "wait")]
    assert output.count(f"Looking for {path}") == 2
    assert sum(re.match(f"Waiting for {path} since 20.+ until 20", line) is not None for line in output) == 2


def test_mark_failed_terminates_the_process_tree(airflow, sleeping):
    """Neither the module nor a grandchild in its own session, deaf to SIGTERM, is left behind."""
    run_id, processes = sleeping
    airflow.mark("sleeps", run_id, "job", "failed")
    _, alive = psutil.wait_procs(processes[1:], timeout=PATIENCE)
    assert not alive
    assert airflow.state("sleeps", run_id, "job") == "failed"


def test_killed_worker_leaves_no_process(airflow, sleeping):
    """kill -9 gives the worker no chance to clean up; the reaper does it."""
    run_id, (worker, *processes) = sleeping
    worker.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert not alive
    airflow.wait_for_state("sleeps", run_id, "job", "failed")


def test_killed_supervisor_leaves_no_process(airflow, sleeping):
    """Out of memory, the kernel may kill the process above the worker's; Airflow would then run the task again."""
    _, (worker, *processes) = sleeping
    psutil.Process(worker.ppid()).send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert not alive


def test_worker_creates_only_the_tasks_it_needs(airflow):
    """Results, mapped tasks, paths, another try, a job and a teardown work as they do with all of it."""
    run_id = airflow.trigger("on_demand")
    airflow.until(lambda: airflow.run_state("on_demand", run_id) in ("success", "failed"), "the run to end")
    for task_id in lazy_tasks_case.ALSO_MADE:
        for map_index in {"g.over": range(3), "g.known": range(2)}.get(task_id, [-1]):
            airflow.wait_for_state("on_demand", run_id, task_id, "success", map_index=map_index)
    assert airflow.xcom("on_demand", run_id, "beside") == 13
    assert airflow.try_number("on_demand", run_id, "g.again") == 2
    work = airflow.home / "dags" / "work"
    assert [path.name for path in work.iterdir() if not path.name.startswith(".")] == ["failed"]

    made: dict[str, set[str]] = {}
    for line in (airflow.home / "dags" / "made.log").read_text().splitlines():
        task_id, *ids = line.split()
        made.setdefault(task_id, set()).update(ids)
    assert made == {
        task_id: {task_id, *also, *lazy_tasks_case.ASKED_FOR} for task_id, also in lazy_tasks_case.ALSO_MADE.items()
    }


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 1000).decode()
    except BlockingIOError:
        return ""
