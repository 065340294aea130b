"""A complete Airflow whose parts are separate processes, so that tests can kill one and observe the others.

    with Airflow(home, {"PYTHONPATH": str(modules)}, {"my_cluster": {"conn_type": "sewer"}}) as airflow:
        run_id = airflow.trigger("my_dag")
        airflow.wait_for_state("my_dag", run_id, "my_task", "success")

DAG files lie in ``home / "dags"``; each part writes to ``home / "<part>.log"``.

Durations, measured with Airflow 3.3.2 on two shared cores (test_deployment.py prints the current ones):

====================================================================  ===========
``start()``: database, four parts, all healthy                        10 to 14 s
``stop()``                                                            2 to 3 s, at times 10 s
``stop_part("triggerer")``                                            1 s, at times 11 s
``start_part("triggerer")``, ``start_part("scheduler")``              2 to 5 s
task's process killed, until the next try is due                      1 to 3 s
task's supervisor killed, until the next try is due                   11 to 12 s
triggerer killed and started again, until its trigger runs            5 s
scheduler killed and started again, until its tasks are run again     8 to 10 s
====================================================================  ===========

Unexpected behaviour of Airflow (the cases without ``retries`` and without an API server are read, not tried):

- A new scheduler runs every task of the killed one again, as the next try, even without ``retries``. It does so ten
  seconds after the killed one's last heartbeat. The supervisor ends a task that is still running then.
- A task whose supervisor was killed continues beside its next try, until the operator notices by itself.
- If the API server is away for ten seconds, the scheduler fails every running task, as no heartbeats arrive.
- A scheduler one of whose supervisors was killed does not always end on SIGTERM: it waits for an idle worker.
  ``stop()`` kills it after ten seconds; ``stop_part`` fails.
- SQLite, with the WAL, is sufficient: 72 tasks on eight workers in 10 to 12 s, and no "database is locked".
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from .rest import PATIENCE, SHORTEST_POLL, AirflowApi

GRACE = 10.0

PARTS = {
    "api-server": ("api-server",),
    # The API server finds every log in the folder they share. The log servers' fixed ports would clash with others.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}

# Short enough that a test can wait for it, long enough that a busy machine is not taken for a dead process.
SETTINGS = {
    "CORE__EXECUTOR": "LocalExecutor",
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__PARALLELISM": "8",
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "API__HOST": "127.0.0.1",
    "API__WORKERS": "1",
    # A task whose supervisor is dead is noticed by its heartbeat.
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    # A worker ends its task after so many failed heartbeats: let it survive a restart of the API server.
    "WORKERS__MAX_FAILED_HEARTBEATS": "10",
    # A new scheduler takes over the queued and running tasks of the killed one.
    "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    # A new triggerer takes over the triggers of the killed one.
    "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
    "SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
    # A changed or new DAG file is found by the refresh; parsing the others again would only cost time.
    "DAG_PROCESSOR__REFRESH_INTERVAL": "3",
    "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
}

# Ends the registered sessions when its stdin is closed, that is when the tests have ended.
WATCH = """
import os, signal, sys
sessions = set()
for line in sys.stdin:
    (sessions.add if line[0] == "+" else sessions.discard)(int(line[1:]))
alive = bool(sessions)
while alive:
    alive = False
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                state, *numbers = file.read().rpartition(")")[2].split()
            if int(numbers[2]) in sessions and state not in "ZX":
                os.kill(int(name), signal.SIGKILL)
                alive = True
        except OSError:
            pass
"""


class Airflow(AirflowApi):
    """An Airflow of an API server, a scheduler with LocalExecutor, a DAG processor and a triggerer, on SQLite.

    :param parts: its parts, by names of their own, and how each is started, if these are others. The first word of
        that is how Airflow's health report names them.
    """

    def __init__(
        self,
        home: Path,
        env: Mapping[str, str] | None = None,
        connections: Mapping[str, dict] | None = None,
        parts: Mapping[str, tuple[str, ...]] = PARTS,
    ) -> None:
        self.home = home
        self._commands = parts
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{port}")
        # Nothing of an Airflow, or of a Python, that the shell is set up for.
        foreign = ("AIRFLOW", "_AIRFLOW", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME")
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **{f"AIRFLOW__{name}": value for name, value in SETTINGS.items()},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self.url,
            # Airflow turns the WAL on by itself; a writer waits this long for the other processes.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
            # Four processes that start at once would each make up their own.
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(),
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in (connections or {}).items()},
            **(env or {}),
        }
        self._parts: dict[str, subprocess.Popen] = {}
        self._launched: dict[str, datetime] = {}
        self._sessions: set[int] = set()
        self._watch: subprocess.Popen | None = None

    # The parts ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all parts; return when they are healthy and the API answers."""
        (self.home / "dags").mkdir(parents=True, exist_ok=True)
        with (self.home / "migrate.log").open("wb") as log:
            command = [sys.executable, "-m", "airflow", "db", "migrate"]
            subprocess.run(command, env=self._env, stdout=log, stderr=log, check=True, timeout=PATIENCE)
        self._watch = subprocess.Popen(
            [sys.executable, "-S", "-c", WATCH], stdin=subprocess.PIPE, start_new_session=True, text=True
        )
        for name in self._commands:
            self.launch_part(name)
        self.until(self.log_in, "the API server to answer")
        self._wait_until_healthy(*self._commands)

    def stop(self) -> None:
        """End all parts and the tasks that they run: an operator has its `on_kill` called, and some seconds for it."""
        for part in self._parts.values():
            part.terminate()
        # The parts end their processes themselves: LocalExecutor's idle workers and the triggerer's runner, asked by
        # both, may hang. But no part ends the tasks.
        for scheduler in [part for name, part in self._parts.items() if self._commands[name][0] == "scheduler"]:
            members = _members(scheduler.pid)
            _send(signal.SIGTERM, [member for member in members if scheduler.pid not in {member.pid, member.ppid()}])
        # A scheduler waits for its tasks. A task whose supervisor was killed is deaf to SIGTERM: it is not waited for.
        deadline = time.monotonic() + GRACE
        while any(map(self._ending, self._parts)) and time.monotonic() < deadline:
            time.sleep(SHORTEST_POLL)
        for session in list(self._sessions):
            self._end_session(session)
        for process in self._parts.values():
            process.wait(PATIENCE)
        self._parts.clear()
        if self._watch is not None:
            self._watch.communicate(timeout=PATIENCE)
            self._watch = None

    def start_part(self, name: str) -> None:
        """Start one part, and wait until Airflow calls it healthy."""
        self.launch_part(name)
        self._wait_until_healthy(name)

    def stop_part(self, name: str, timeout: float = PATIENCE) -> None:
        """Ask a part to end (SIGTERM), and wait for it. A scheduler lets its running tasks come to their end."""
        part = self._parts[name]
        part.terminate()
        try:
            part.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{name} did not end within {timeout} s of SIGTERM\n{self.tails()}")
        del self._parts[name]
        self._end_session(part.pid)

    def kill_part(self, name: str, *, workers: bool = True) -> None:
        """Kill a part's processes on the spot (SIGKILL), as a machine does that runs out of memory.

        These are the processes of the session that the part leads: the triggerer and its runner; the scheduler,
        LocalExecutor's workers (a task's supervisor is one of them) and the task runners. A process that went into
        a session of its own, as the reaper of a module and the module do, is left alone.

        With ``workers=False`` only the part's first process dies: a killed scheduler then leaves its workers and
        their tasks running, and they go on talking to the API server.
        """
        part = self._parts.pop(name)
        part.kill()
        part.wait(PATIENCE)
        if workers:
            self._end_session(part.pid)

    def kill_all(self) -> None:
        """Kill the processes of all parts, those that are stopped (SIGSTOP) or have lost their part included."""
        for name in list(self._parts):
            self.kill_part(name)
        for session in list(self._sessions):
            self._end_session(session)

    def restart_part(self, name: str) -> None:
        """Stop a part and start it again."""
        self.stop_part(name)
        self.start_part(name)

    def processes(self, name: str) -> list[psutil.Process]:
        """Return the running processes of a part."""
        return _members(self._parts[name].pid)

    def all_processes(self) -> list[psutil.Process]:
        """Return the running processes of all parts, of those that were killed with ``workers=False`` as well."""
        return _members(*self._sessions)

    def main_pid(self, name: str) -> int:
        """Return the pid of the process that a part was started as."""
        return self._parts[name].pid

    def part_names(self) -> list[str]:
        """Return the names of all parts that were started and not taken away, also of those that have ended."""
        return list(self._parts)

    def ended_parts(self) -> list[str]:
        """Return the parts that have ended though no test has asked them to."""
        return [name for name, part in self._parts.items() if part.poll() is not None]

    def trouble(self) -> str:
        """Return a message about parts that have ended unexpectedly."""
        ended = self.ended_parts()
        return f"ended by themselves: {', '.join(ended)}" if ended else ""

    def tails(self, characters: int = 3000) -> str:
        """Return the last lines that each part has written."""
        logs = sorted(self.home.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-characters:]}" for log in logs)

    def launch_part(self, name: str) -> None:
        """Start one part and return at once."""
        assert name not in self._parts, f"{name} is running"
        with (self.home / f"{name}.log").open("ab") as log:
            part = subprocess.Popen(
                [sys.executable, "-m", "airflow", *self._commands[name]],
                env=self._env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._parts[name] = part
        self._launched[name] = datetime.now(tz=UTC)
        self._remember("+", part.pid)
        self._sessions.add(part.pid)

    def _ending(self, name: str) -> bool:
        # At times, the triggerer waits ten seconds for a runner that has ended.
        part = self._parts[name]
        return part.poll() is None and (self._commands[name][0] != "triggerer" or len(_members(part.pid)) > 1)

    def _end_session(self, session: int) -> None:
        # A process may start another one while the list is read: again, until there is none.
        while members := _members(session):
            _send(signal.SIGKILL, members)
            time.sleep(0.01)
        self._sessions.discard(session)
        self._remember("-", session)

    def _remember(self, sign: str, session: int) -> None:
        self._watch.stdin.write(f"{sign}{session}\n")
        self._watch.stdin.flush()

    def _wait_until_healthy(self, *names: str) -> None:
        self.until(lambda: self._healthy(names), f"{', '.join(names)} to be healthy")

    def _healthy(self, names: Iterable[str]) -> bool:
        """Return whether these parts work; the last heartbeat of a killed one of the same name does not count."""
        health = self.get("/monitor/health")
        keys = {name: self._commands[name][0].replace("-", "_") for name in names}
        keys = {name: key for name, key in keys.items() if key != "api_server"}
        beats = {name: health[key][f"latest_{key}_heartbeat"] for name, key in keys.items()}
        return health["metadatabase"]["status"] == "healthy" and all(
            health[key]["status"] == "healthy" and datetime.fromisoformat(beats[name]) > self._launched[name]
            for name, key in keys.items()
        )

    # Its processes ---------------------------------------------------------------------------------------------------

    def worker_pid(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> int:
        """Return the process that runs the operator; its supervisor sees at once when it is killed."""
        return self._worker(dag_id, run_id, task_id, map_index).pid

    def supervisor_pid(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> int:
        """Return LocalExecutor's worker above it, which sends the task's heartbeats."""
        return self._worker(dag_id, run_id, task_id, map_index).ppid()

    def _worker(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> psutil.Process:
        def running() -> psutil.Process | None:
            instance = self.task_instance(dag_id, run_id, task_id, map_index)
            # After a deferral, the number is that of a process long gone, until the task runs again.
            if instance["state"] != "running" or not instance["pid"]:
                return None
            process = psutil.Process(instance["pid"])
            return process if os.getsid(process.pid) in self._sessions else None

        return self.until(running, f"a worker to run {dag_id}.{task_id}")


def still_running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that have not ended. One that has ended may be there for seconds, until init asks how it ended."""
    running = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                running.append(process)
    return running


def _members(*sessions: int) -> list[psutil.Process]:
    """Return the living processes of sessions, wherever in the tree they are by now."""
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) in sessions:
                members.append(process)
    return still_running(members)


def _send(number: signal.Signals, processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
