"""A whole Airflow, `airflow standalone`, steered over REST: what people see, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

PATIENCE = 120.0
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

here = os.path.dirname(__file__)
common = dict(module="job", python=sys.executable, sewer_conn_id="s")
with DAG("talks", schedule=None):
    PythonModuleOperator(task_id="job", parameters_and_flags={"talk": True}, env={"PYTHONPATH": here}, **common)
with DAG("sleeps", schedule=None, params={"fifo": ""}):
    env = {"PYTHONPATH": here, "FIFO": "{{ params.fifo }}"}
    PythonModuleOperator(task_id="job", env=env, termination_grace_period=2, **common)
"""


class Airflow:
    """A running `airflow standalone` and its REST API."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        extra = {"secret_env": json.dumps({"KEY": SECRET, "PEM": "-----BEGIN\nsecond-line-of-the-key"})}
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW_CONN_S": json.dumps({"conn_type": "sewer", "extra": extra}),
        }
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)
        self._token = ""

    def start(self) -> None:
        log = (self.home / "standalone.log").open("wb")
        command = [sys.executable, "-m", "airflow", "standalone"]
        self._process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, start_new_session=True)
        self.until(self._log_in, "Airflow to be healthy")
        self.until(lambda: len(self.get("/dags")["dags"]) == 2, "the DAGs to be parsed")

    def stop(self) -> None:
        tree = [self._process, *psutil.Process(self._process.pid).children(recursive=True)]
        for process in reversed(tree):
            process.terminate()
        _, alive = psutil.wait_procs(tree[1:], timeout=15)
        for process in alive:
            process.kill()
        self._process.wait(30)

    def until(self, condition, what: str):
        """Ask again and again; fail loudly when it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := condition()):
            if time.monotonic() > deadline or self._process.poll() is not None:
                log = (self.home / "standalone.log").read_text(errors="replace")[-4000:]
                pytest.fail(f"waited in vain for {what}\n{log}")
            time.sleep(0.2)
        return answer

    def get(self, path: str) -> dict:
        return self._call("GET", path)

    def trigger(self, dag_id: str, conf: dict | None = None) -> str:
        return self._call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf or {}})["dag_run_id"]

    def mark_failed(self, dag_id: str, run_id: str) -> None:
        self._call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/job", {"new_state": "failed"})

    def state(self, dag_id: str, run_id: str) -> str | None:
        return self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/job")["state"]

    def log(self, dag_id: str, run_id: str) -> list[dict]:
        return self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/job/logs/1?full_content=true")["content"]

    def _call(self, method: str, path: str, body: dict | None = None) -> dict:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/v2{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def _log_in(self) -> bool:
        passwords = self.home / "simple_auth_manager_passwords.json.generated"
        try:
            ((user, password),) = json.loads(passwords.read_text()).items()
            body = json.dumps({"username": user, "password": password}).encode()
            request = urllib.request.Request(f"{self.url}/auth/token", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                self._token = json.load(answer)["access_token"]
            health = self.get("/monitor/health")
        except (OSError, ValueError):
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    home = tmp_path_factory.mktemp("standalone")
    (home / "dags").mkdir()
    (home / "dags" / "job.py").write_text(dedent(JOB))
    (home / "dags" / "dags.py").write_text(dedent(DAGS))
    (home / "dags" / ".airflowignore").write_text("job.py\n")
    airflow = Airflow(home)
    airflow.start()
    yield airflow
    airflow.stop()


@pytest.fixture
def sleeping(airflow, tmp_path):
    """Start the task that sleeps; return its run and its worker's, module's and grandchild's processes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    run_id = airflow.trigger("sleeps", {"fifo": str(fifo)})
    # Opened for both, so that a task which never comes is a failure here and not a wait for ever.
    descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    try:
        said = airflow.until(lambda: _read(descriptor), "the module to start")
    finally:
        os.close(descriptor)
    return run_id, [psutil.Process(int(pid)) for pid in said.split()]


def test_the_log_read_over_rest_has_every_line_told_apart_and_no_secret(airflow):
    """What the module writes is in the task's log; what the connection keeps secret is not."""
    run_id = airflow.trigger("talks")
    airflow.until(lambda: airflow.state("talks", run_id) == "success", "the task to succeed")
    content = airflow.log("talks", run_id)
    lines = {stream: [line["event"] for line in content if line.get("logger") == f"airflow.task.module.{stream}"]
             for stream in ("stdout", "stderr")}  # fmt: skip
    assert lines["stdout"] == ["a line on stdout [with brackets]", "the secret is *** line two is ***", "done"]
    assert lines["stderr"] == ["a line on stderr"]
    assert SECRET not in json.dumps(content)
    assert SECRET not in "".join(path.read_text() for path in (airflow.home / "logs").rglob("*.log"))


def test_marking_a_running_task_failed_ends_all_it_has_started(airflow, sleeping):
    """Neither the module nor a grandchild in its own session, deaf to SIGTERM, is left behind."""
    run_id, processes = sleeping
    airflow.mark_failed("sleeps", run_id)
    _, alive = psutil.wait_procs(processes[1:], timeout=PATIENCE)
    assert not alive
    assert airflow.state("sleeps", run_id) == "failed"


def test_a_worker_killed_on_the_spot_leaves_nothing_running(airflow, sleeping):
    """kill -9 gives the worker no chance to clean up; the guardian does it."""
    run_id, (worker, *processes) = sleeping
    worker.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert not alive
    airflow.until(lambda: airflow.state("sleeps", run_id) == "failed", "Airflow to notice")


def test_a_supervisor_killed_on_the_spot_leaves_nothing_running(airflow, sleeping):
    """Out of memory, the kernel may kill the process above the worker's; Airflow would then run the task again."""
    _, (worker, *processes) = sleeping
    psutil.Process(worker.ppid()).send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE)
    assert not alive


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 1000).decode()
    except BlockingIOError:
        return ""
