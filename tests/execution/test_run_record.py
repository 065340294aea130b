"""Record of a run in its log folder: its events, its locks, and unreadable files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from airflow_provider_sewer import Task
from airflow_provider_sewer.core.errors import StateError, UnreadableRecord
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.run_record import RunRecorder, TaskRecord, read_run, recorded_runs
from airflow_provider_sewer.execution.task_states import Outcome, TaskState
from airflow_provider_sewer.execution.task_usage import TaskUsage

RECORD = Path(__file__).parents[1] / "records" / "1" / "run.jsonl"
USAGE = TaskUsage(
    {"elapsed": 5.0, "cpu": 2.5, "max_rss": 1048576.0},
    {"cpus": 4.0, "mem_gb": 8.0},
    "4711",
    "w.a-1",
    "/runs/1",
    None,
    "n1",
    "success",
)


@pytest.fixture
def pair() -> Workflow:
    first, second = Task("a", "pkg.a"), Task("b", "pkg.b")
    return Workflow("w", [first, second], [(first, second)])


def recorder(folder: Path, workflow: Workflow) -> RunRecorder:
    return RunRecorder(str(folder), workflow, {name: f"{folder}/{name}.log" for name in workflow.tasks})


def test_recorder_writes_each_key_of_format_1(tmp_path, pair) -> None:
    """In the order of the stored record of that format."""
    with recorder(tmp_path, pair) as observer:
        observer.on_start(pair.tasks["a"], "python -m pkg.a", None)
        observer.on_end(pair.tasks["a"], Outcome(TaskState.SUCCEEDED, 8.5, usage=USAGE._replace(started=1.0)))
        observer.on_end(pair.tasks["b"], Outcome(TaskState.UPSTREAM_FAILED, reason="'a' failed"))

    written, expected = (
        [json.loads(line) for line in file.read_text().splitlines()] for file in (tmp_path / "run.jsonl", RECORD)
    )
    assert [list(line) for line in written] == [list(line) for line in expected]
    assert written[0]["tasks"] == expected[0]["tasks"]
    assert [line.get("state") for line in written] == [line.get("state") for line in expected]


def test_read_run_returns_tasks_of_format_1(tmp_path) -> None:
    """An unknown key and an unknown event are ignored."""
    path = tmp_path / "run.jsonl"
    lines = RECORD.read_text().replace("{", '{"later": 1, ', 1).splitlines()
    path.write_text("\n".join([*lines[:-1], '{"event": "later", "task": "a", "at": 1}', lines[-1], ""]))

    run = read_run(str(path))

    assert run[:2] == ("w", "/project/flow.py")
    assert (run.started, run.ended, run.is_running) == (1700000000.0, 1700000010.0, False)
    assert run.tasks["a"] == TaskRecord(
        "a", "pkg.a", [], f"{tmp_path}/a.log", TaskState.SUCCEEDED, 1700000001.0, 1700000004.0, 1700000009.5, 8.5, "",
        USAGE._replace(started=1700000004.0),
    )  # fmt: skip
    assert run.tasks["b"].state is TaskState.UPSTREAM_FAILED
    assert run.tasks["b"].reason == "'a' failed"


def test_read_run_during_run_is_running(tmp_path, pair) -> None:
    with recorder(tmp_path, pair) as observer:
        observer.on_start(pair.tasks["a"], "", None)
        run = read_run(observer.path)
    assert run.is_running
    assert run.tasks["a"].state is TaskState.RUNNING


def test_read_run_of_killed_run_has_no_end(tmp_path) -> None:
    """A kill can leave an unfinished line, which is ignored."""
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(RECORD.read_text().splitlines()[:3])[:-5])
    run = read_run(str(path))
    assert (run.ended, run.is_running, run.tasks["a"].state) == (None, False, TaskState.RUNNING)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"sewer_run": 1',
            '"sewer_run": 99',
            "has format 99, and this version of .* reads format 1",
        ),
        ('"upstream": [], ', "", "the key 'upstream' is missing"),
        ('"state": "succeeded"', '"state": "good"', "cannot be read as format 1"),
        ('"task": "a", "at": 1700000001.0', '"task": "c", "at": 1', "the key 'c' is missing"),
        ('{"event": "begun"', "event begun", "run.jsonl:2: not a record of a run"),
    ],
)
def test_read_run_of_damaged_record_raises(tmp_path, old, new, message) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(RECORD.read_text().replace(old, new))
    with pytest.raises(UnreadableRecord, match=message):
        read_run(str(path))


def test_read_run_of_missing_file_raises(tmp_path) -> None:
    with pytest.raises(StateError, match=r"cannot read the record .*run\.jsonl: No such file"):
        read_run(str(tmp_path / "run.jsonl"))


def test_read_run_of_empty_file_raises(tmp_path) -> None:
    (tmp_path / "run.jsonl").touch()
    with pytest.raises(UnreadableRecord, match="it is empty"):
        read_run(str(tmp_path / "run.jsonl"))


def test_recorder_without_space_warns_and_run_goes_on(tmp_path, pair) -> None:
    os.symlink("/dev/full", tmp_path / "run.jsonl")
    with recorder(tmp_path, pair) as observer:
        observer.on_start(pair.tasks["a"], "", None)
    assert "sppe report does not show all of this run" in observer.warning


def test_recorded_runs_lists_newest_first(tmp_path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.jsonl").touch()
        os.utime(tmp_path / name / "run.jsonl", (1700000000 - age,) * 2)
    (tmp_path / "without a record").mkdir()
    assert [Path(path).parent.name for path in recorded_runs(str(tmp_path))] == ["new", "middle", "old"]


def test_recorded_runs_of_missing_folder_is_empty(tmp_path) -> None:
    assert recorded_runs(str(tmp_path / "none")) == []
