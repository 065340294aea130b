"""The containers of docker-compose.yaml, brought up with ``make up`` from a copy of this checkout.

The copy has its own ``.env``, its own project name and its own port, so that it does not interfere with other projects.
Beside the examples it has the DAGs of :mod:`tests.airflow.slurm_cases`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.airflow.deployment import SETTINGS
from tests.airflow.rest import AirflowApi
from tests.airflow.slurm_cases import CONNECTION, MODULE, connection, dag_file
from tests.slurm_cluster.client import Job

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    *(".dev", ".docker", "airflow_provider_sewer", "dags"),
    *("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "docker-compose.yaml", "pyproject.toml"),
)
PREFIX = "sewer-test-"

#: Images, databases, healthy daemons: from nothing, and beside other tests.
PATIENCE_FOR_UP = 900.0

AIRFLOW = ("airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
NODES = ("node1", "node2")
#: Of a node that takes jobs. Slurm drains one that is asked, for example, to run a job whose number it has already.
NODE_STATES = ("allocated", "idle", "mixed")
#: Has Slurm's client commands and the shared volume, and no test stops it.
LOGIN = "airflow-dag-processor"

PYTHON = "/opt/envs/digits/bin/python"
MODULES = "/shared/chaos/modules"

#: The same module as a process of the worker's own container, beside the DAGs of tests.airflow.slurm_cases.
LOCAL_DAGS = """
from airflow.sdk import DAG
from airflow_provider_sewer.operators.module import PythonModuleOperator

with DAG("stays", schedule=None, params={{"folder": "/nowhere", "name": "no_name"}}):
    PythonModuleOperator(
        task_id="job",
        module="chaos_counts",
        parameters_and_flags={{"folder": "{{{{ params.folder }}}}", "index": 0}},
        python={python!r},
        env={{"PYTHONPATH": {modules!r}, "SLURM_JOB_ID": "none"}},
        sewer_conn_id={connection!r},
    )
"""


def lacking() -> str:
    """Return a message about commands missing for containers; empty if there are none."""
    for command in (["docker", "compose", "version"], ["docker", "version"], ["make", "--version"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            return f"there is no `{command[0]}` on PATH"
        if done.returncode:
            return f"`{' '.join(command)}` failed: {done.stderr.strip()}"
    return ""


class Stack(AirflowApi):
    """An Airflow and a Slurm cluster in containers.

    :param folder: where the copy of the checkout is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = f"{PREFIX}{os.getpid()}"
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "SEWER_"))},
            "COMPOSE_PROJECT_NAME": self.project,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.printed = ""
        self.secrets: dict[str, str] = {}

    def start(self) -> None:
        """Copy the checkout and bring it up as a user does."""
        _remove_leftovers()
        self._copy()
        self.printed = self.make("up")
        written = dict(line.split("=", 1) for line in (self.folder / ".env").read_text().splitlines())
        port, project = written.pop("SEWER_AIRFLOW_PORT"), written.pop("COMPOSE_PROJECT_NAME")
        assert project == self.project
        self.secrets = written  # and all else that make up writes there is secret
        login = {"username": "admin", "password": self.secrets["SEWER_AIRFLOW_PASSWORD"]}
        super().__init__(f"http://127.0.0.1:{port}", login)
        self.log_in()
        self.run_in(LOGIN, "mkdir", "-p", MODULES)
        self.run_in(LOGIN, "sh", "-c", f"cat > {MODULES}/chaos_counts.py", stdin=MODULE)

    def stop(self) -> None:
        """Remove everything that was brought up, the volumes and images included."""
        _remove(self.project)

    # Containers -----------------------------------------------------------------------------------------------------

    def make(self, target: str) -> str:
        """Make one of the Makefile's targets in the copy, and return its output."""
        return self._run(["make", target], PATIENCE_FOR_UP)

    def docker(self, *arguments: str) -> str:
        """Run ``docker``, and return its output."""
        return self._run(["docker", *arguments], PATIENCE_FOR_UP)

    def shell(self, line: str) -> str:
        """Run a line of a shell in the copy, and return its stdout and stderr."""
        return self._run(["sh", "-c", f"{line} 2>&1"], PATIENCE_FOR_UP)

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        """Run ``docker compose`` in the copy, and return its output."""
        return self._run(["docker", "compose", *arguments], timeout)

    def run_in(self, service: str, *argv: str, stdin: str = "", timeout: float = 300) -> str:
        """Run a command in a service's container, as the user it runs as, and return its stdout."""
        return self._run(["docker", "compose", "exec", "--no-TTY", service, *argv], timeout, stdin)

    def kill(self, *services: str) -> None:
        """Kill containers on the spot, as on a power failure."""
        self.compose("kill", *services)

    def processes(self, service: str, text: str) -> list[str]:
        """Return the command lines of a container's processes that contain a text."""
        return [line for line in self.run_in(service, "ps", "-axww", "-o", "args=").splitlines() if text in line]

    def start_again(self, *services: str) -> None:
        """Start stopped containers, and wait until they are healthy."""
        self.compose("up", "--detach", "--no-deps", "--no-recreate", "--no-build", "--wait", *services)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return the engine's data on each service's container, running or not."""
        listed = self.compose("ps", "--all", "--format", "json")
        return {row["Service"]: row for row in map(json.loads, listed.splitlines())}

    def down(self) -> list[str]:
        """Return the services whose containers do not run."""
        there = self.containers()
        return [name for name, row in there.items() if name != "airflow-init" and row["State"] != "running"]

    def ails(self) -> dict[str, str]:
        """Return the trouble: containers that are not healthy or were restarted, and nodes in other states."""
        there = self.containers()
        found = {name: row["Status"] for name, row in there.items() if name != "airflow-init"}
        found = {name: status for name, status in found.items() if not status.endswith("(healthy)")}
        counts = _docker("inspect", "--format", "{{.Name}} {{.RestartCount}}", *(row["ID"] for row in there.values()))
        found |= {name: f"{count} restarts" for name, count in map(str.split, counts.splitlines()) if count != "0"}
        nodes = self.command("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return found | {name: state for name, state in map(str.split, nodes) if state not in NODE_STATES}

    def tails(self, characters: int = 3000) -> str:
        """Return the last lines of all containers' output."""
        return self.compose("logs", "--tail", "20", "--no-color")[-characters * 5 :]

    # Slurm ----------------------------------------------------------------------------------------------------------

    def command(self, *argv: str) -> str:
        """Run one of Slurm's commands, and return its output."""
        return self.run_in(LOGIN, *argv)

    def has_remembered(self, job: Job) -> None:
        """Wait until the controller has saved the state of a job, which happens seconds after a change."""
        began = time.time()
        self.run_in("slurmctld", "scontrol", "update", f"jobid={job.id}", "comment=to be remembered")
        state = "/var/spool/slurmctld/job_state"
        self.until(lambda: float(self.run_in("slurmctld", "stat", "-c", "%.Y", state)) > began, f"{job} in {state}")

    def jobs(self, name_contains: str = "") -> list[Job]:
        """Return all jobs that accounting knows."""
        # With duplicates: a job that was put back into the queue has a line for each time.
        listed = self.command("sacct", "-aDnPX", "-S", "now-1days", "--format=JobIDRaw,JobName,State,ExitCode")
        jobs: dict[str, Job] = {}
        for line in listed.splitlines():
            number, name, state, exit_code = line.split("|")
            restarts = jobs[number].restarts + 1 if number in jobs else 0
            # "CANCELLED by 50000"
            jobs[number] = Job(number, name, state.split()[0], exit_code, restarts)
        return [job for job in jobs.values() if name_contains in job.name]

    # Setup ----------------------------------------------------------------------------------------------------------

    def _copy(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.folder / name)
        paths = {"modules": MODULES, "python": PYTHON}
        (self.folder / "dags" / "chaos.py").write_text(dag_file(**paths))
        (self.folder / "dags" / "chaos_local.py").write_text(LOCAL_DAGS.format(**paths, connection=CONNECTION))
        # Compose reads this file as well, by its name.
        (self.folder / "docker-compose.override.yaml").write_text(yaml.safe_dump(_override()))

    def _run(self, command: list[str], timeout: float, stdin: str = "") -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise OSError(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout


def _override() -> dict[str, Any]:
    """Return the overrides for tests: shorter times until Airflow takes a part for dead.

    Some are longer than those for plain processes, as a cluster beside it keeps the machine busier.
    """
    groups = ("WORKERS__", "SCHEDULER__", "TRIGGERER__", "DAG_PROCESSOR__")
    timing = {f"AIRFLOW__{name}": value for name, value in SETTINGS.items() if name.startswith(groups)}
    timing["AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD"] = "20"
    timing["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] = "60"
    environment = {**timing, f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps(connection())}
    return {"services": {name: {"environment": environment} for name in AIRFLOW}}


def _remove_leftovers() -> None:
    """Remove the containers of killed test sessions."""
    label = "com.docker.compose.project"
    listed = _docker("ps", "--all", "--format", f'{{{{.Label "{label}"}}}}')
    for project in {line for line in listed.split() if line.startswith(PREFIX)}:
        pid = project.removeprefix(PREFIX)
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            _remove(project)


def _remove(project: str) -> None:
    # Without the file, which may be missing or incomplete.
    _docker("compose", "--project-name", project, "down", "--volumes", "--remove-orphans", "--timeout", "3")
    for image in ("airflow", "slurm"):
        _docker("image", "rm", "--force", f"{project}-{image}")


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=300, check=False)
    return done.stdout
