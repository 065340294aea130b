"""Evidence of a drill: task instances and XComs over REST, logs and the ledger from their files."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from drill.faults import FINAL, STREAMS, TaskSeen
from drill.project import DAG_IDS
from tests.airflow.rest import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drill.project import Project
    from drill.stage import Stage

_PAGE = 100
_LOGGER = "airflow.task.module."
#: Log line of a restarted slurmctld for a job that is missing in its saved state, or still pending there though a node
#: runs it. Such a job is ended on the node. An array task is logged as JobId=4_1(5).
_LOST = re.compile(
    r"(?:Orphan StepId=|Registered PENDING JobId=|Purged files for defunct batch JobId=)(\d+)(?:_\d+\((\d+)\))?"
)
# slurmctld has started such a job again, and its slurmd, which still runs it, has it cancelled.
_STARTED_AGAIN = re.compile(r"Could not launch job (\d+) and not able to requeue it")


class Line(NamedTuple):
    """A line of a task's log.

    :param time: seconds since the epoch.
    :param file: the file's name, which contains the try number, and marks logs of a triggerer.
    :param entry: the complete entry.
    """

    time: float
    file: str
    entry: dict[str, Any]

    @property
    def stream(self) -> str:
        """Return the module's stream; empty for a line of Airflow or of the operator."""
        logger = str(self.entry.get("logger", ""))
        return logger.removeprefix(_LOGGER) if logger.startswith(_LOGGER) else ""


def is_settled(stage: Stage) -> bool:
    """Return whether all runs and all task instances have ended."""
    runs = [run for dag_id in DAG_IDS for run in _all(stage, f"/dags/{dag_id}/dagRuns", "dag_runs")]
    return all(run["state"] in {"success", "failed"} for run in runs) and all(
        instance["state"] in FINAL for instance in _instances(stage)
    )


def tasks_seen(stage: Stage, project: Project) -> list[TaskSeen]:
    """Return the current state of all task instances."""
    return [_seen(stage, project, instance) for instance in _instances(stage)]


def log_of(stage: Stage, task: str) -> Iterator[Line]:
    """Yield all log lines of all tries of a task instance, file by file."""
    dag_id, run_id, task_id, map_index = task.split("/")
    folder = stage.airflow.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
    folder = folder if map_index == "-1" else folder / f"map_index={map_index}"
    for file in sorted(folder.glob("attempt=*.log*")):
        for line in file.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
                yield Line(datetime.fromisoformat(entry["timestamp"]).timestamp(), file.name, entry)
            except (ValueError, KeyError, TypeError):
                # A killed process may leave a partial line.
                yield Line(0.0, file.name, {"event": line})


def lost_by_slurm(stage: Stage) -> set[str]:
    """Return the ids of jobs that a killed slurmctld lost, because it saves its state only every five seconds."""
    logs = "".join(log.read_text(errors="replace") for log in (stage.slurm.folder / "log").glob("*.log"))
    return {element or job for job, element in _LOST.findall(logs)} | set(_STARTED_AGAIN.findall(logs))


def _seen(stage: Stage, project: Project, instance: dict[str, Any]) -> TaskSeen:
    place = [instance[name] for name in ("dag_id", "dag_run_id", "task_id", "map_index")]
    key = "/".join(map(str, place))
    logged: dict[str, list[str]] = {stream: [] for stream in STREAMS}
    for line in log_of(stage, key):
        if line.stream in logged:
            logged[line.stream].append(line.entry["event"])
    result = None
    if instance["state"] == "success":
        with _suppress_missing():
            result = stage.airflow.xcom(*place[:3], map_index=place[3])
    return TaskSeen(key, instance["state"], instance["try_number"], result, logged, project.has_product(key))


@contextmanager
def _suppress_missing() -> Iterator[None]:
    """Suppress the error for an XCom that does not exist; the task counts as a success without a result then."""
    try:
        yield
    except Refused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise


def _instances(stage: Stage) -> list[dict[str, Any]]:
    return [
        instance
        for dag_id in DAG_IDS
        for instance in _all(stage, f"/dags/{dag_id}/dagRuns/{quote('~')}/taskInstances", "task_instances")
    ]


def _all(stage: Stage, path: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield all items of a list, page by page."""
    offset = 0
    while items := stage.airflow.get(f"{path}?limit={_PAGE}&offset={offset}&order_by=id")[name]:
        yield from items
        offset += len(items)
