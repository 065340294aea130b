"""Identity of jobs: names, damaged or removed job directories, and jobs of others."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core.errors import SlurmError, SlurmJobFailed, UnreadableRecord
from airflow_provider_sewer.slurm.attempts import Attempts, TaskInstance
from airflow_provider_sewer.slurm.backend import UNKNOWN_JOB, JobRef
from airflow_provider_sewer.slurm.client import SlurmClient
from tests.slurm.worker import OVER, folders, let_go, seen

if TYPE_CHECKING:
    from collections.abc import Callable

UNTIL_GO = 'wait_for("go"); say("done")'
ODD_NAMES = [
    "two words, and a comma",
    "größe ✓ 大きい",
    'it\'s "quoted" `so` $HOME \\',
    "100 % %j",
    "a|b;c&d",
    "line\nbreak\ttab",
    " -leading and trailing ",
    "x" * 1000,
    "é" * 200,
]


def job_name(run_dir: str = "/runs", label: str | None = None, **fields: object) -> str:
    whole = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1, "clears": "0", **fields}
    return Attempts(run_dir, TaskInstance(**whole), label)._name(1)


def remove(folder: str) -> None:
    """Remove a job directory, also while a job writes to it."""
    while os.path.isdir(folder):
        shutil.rmtree(folder, ignore_errors=True)


def test_find_accepts_any_task_and_job_name(jobs, slurm):
    """Each job is found by its name, and is the only one."""
    runs = []
    for name in ODD_NAMES:
        planned = jobs.plan("say('done')")
        runs.append(jobs.follow(planned._replace(instance=planned.instance._replace(task_id=name))))
        runs.append(jobs.follow(planned._replace(slurm=planned.slurm._replace(slurm={"name": name}))))
    for run in runs:
        assert SlurmClient().find(run.job.ref.name, "/nowhere") == run.id
        assert run.succeeds() == "done"
        assert [job.id for job in slurm.jobs(run.job.ref.name)] == [run.id]


def test_job_names_are_unique_across_task_instances():
    """Not in two DAGs, runs or run_dirs, nor when mapped."""
    others: list[dict[str, object]] = [
        {}, {"dag_id": "other"}, {"run_id": "other"}, {"task_id": "other"}, {"map_index": 0}, {"map_index": 1},
        {"run_dir": "/others"}, {"task_id": "task.0"}, {"dag_id": "dag.task", "task_id": ""}, {"label": "x"},
    ]  # fmt: skip
    names = [job_name(**other) for other in others]
    assert len(set(names)) == len(names)


def test_same_task_in_two_dags_submits_two_jobs(jobs):
    """They run side by side, and each has its own result."""
    planned = jobs.plan("say(run_dir.split('/')[-4])")
    plans = [planned._replace(instance=planned.instance._replace(dag_id=dag)) for dag in ("left", "right")]
    left, right = map(jobs.follow, plans)
    assert (left.succeeds(), right.succeeds()) == ("left", "right")
    assert left.id != right.id


# -- Jobs of others ----------------------------------------------------------------------------------------------------


def test_foreign_job_with_same_id_is_not_polled_or_cancelled(jobs, slurm):
    """Name and id have to be right, both."""
    foreign = slurm.submit("sleep 600", "--job-name=foreign")
    ref = JobRef(foreign, "ours-123456789abc", "/nowhere")
    client = SlurmClient()
    assert client.cancel([ref], timeout=60) == {}
    assert client.poll([ref]) == {ref: UNKNOWN_JOB}
    assert slurm.wait_for(foreign, "RUNNING").name == "foreign"


def test_find_ignores_job_with_similar_name(jobs, slurm):
    """Nor is one whose name ends alike, or whose script is in another folder."""
    for name in ("ours-1234", "yours-123"):
        slurm.submit("sleep 600", f"--job-name={name}")
    assert SlurmClient().find("ours-123", "/nowhere") is None


def test_find_ignores_job_of_another_user(jobs, slurm, monkeypatch):
    """Though it has the name."""
    job_id = slurm.submit("sleep 600", "--job-name=shared")
    client = SlurmClient()
    assert client.find("shared", "/nowhere") == job_id
    monkeypatch.setattr("os.geteuid", lambda: 54321)
    assert client.find("shared", "/nowhere") is None


# -- Damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", '{"name": "x', "[]", "{}"])
def test_damaged_attempt_record_raises_and_keeps_job(plan, jobs, slurm, worker, text):
    """The job may end well: it is neither cancelled nor replaced, and is collected once the record is restored."""
    planned = plan(UNTIL_GO)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    record = Path(folders(planned)[0].path, "attempt.json")
    whole = record.read_text()
    record.write_text(text)
    refused = jobs.follow(planned)
    refused._thread.join(60)
    assert isinstance(refused.error, UnreadableRecord), refused.error
    assert re.search(r"attempt\.json cannot be read as format 1: .* remove the job directory", str(refused.error))
    record.write_text(whole)
    second = jobs.follow(planned)
    assert second.id == job_id
    let_go(planned)
    assert second.succeeds() == "done"
    assert seen(slurm, planned) == [job_id]


@pytest.mark.parametrize("text", [None, '{"id": "1', "[]", '{"id": 7}'])
def test_damaged_job_record_reattaches_by_job_name(plan, jobs, slurm, worker, text):
    """The job is found, and taken up."""
    planned = plan(UNTIL_GO)
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    first.kill()
    note = Path(folders(planned)[0].path, "job.json")
    note.write_text(text) if text is not None else note.unlink()
    second = jobs.follow(planned)
    assert second.id == job_id
    let_go(planned)
    assert second.succeeds() == "done"
    assert json.loads(note.read_text())["id"] == job_id


def test_removed_job_directory_of_running_job_fails(plan, jobs, slurm):
    """There is no record, so there is no success; the error names the directory."""
    planned = plan("wait_for('never') if not os.path.exists(run_dir) else time.sleep(2)", lost_after=1.0)
    run = jobs.follow(planned)
    run.expect_line("line 39")
    path = run.directory.path
    remove(path)
    slurm.wait_for(run.id, *OVER)
    run._thread.join(120)
    assert isinstance(run.error, SlurmError), (run.error, run.logged)
    assert path in str(run.error)


def test_duplicate_job_name_is_cancelled_before_resubmission(plan, jobs, slurm, worker):
    """The new attempt does not take it for its own, and does not run beside it."""
    planned = plan("wait_for('go'); say('done')")
    first = worker(planned)
    job_id = first.expect("begun").split()[1]
    slurm.wait_for(job_id, "RUNNING")
    first.kill()
    remove(folders(planned)[0].path)
    second = jobs.follow(planned)
    assert second.id != job_id
    assert slurm.job(job_id).state in OVER
    let_go(planned)
    assert second.succeeds() == "done"
    second.expect_logged("its job directory was removed")
    assert seen(slurm, planned) == [job_id, second.id]


def test_ended_job_with_same_name_is_not_reattached(plan, jobs, slurm):
    """A user has removed the folders, and then cleared the task."""
    planned = plan("say('done'); sys.exit(3)")
    first = jobs.follow(planned)
    first.fails(SlurmJobFailed)
    remove(first.directory.path)
    second = jobs.follow(planned)
    second.fails(SlurmJobFailed)
    assert seen(slurm, planned) == [first.id, second.id]


def test_latest_ignores_entries_that_are_not_attempts(tmp_path):
    """Only numbers are attempts; an empty one does not count."""
    make: Callable[[], Attempts] = lambda: Attempts(str(tmp_path), TaskInstance("dag", "run", "task", -1, "0"))  # noqa: E731
    folder = tmp_path / "dag" / "run" / "task"
    for name in ("notes", "0", "²", "-1", "3"):
        (folder / name).mkdir(parents=True)
    assert make().latest() is None
    assert make().begin().directory.path == str(folder / "4")


def test_latest_skips_attempt_of_another_task_instance(tmp_path):
    """It is in the folder by mistake; the task's own attempt before it still counts, with any label."""
    instance = TaskInstance("dag", "run", "task", -1, "0")
    attempts = Attempts(str(tmp_path), instance)
    for number, owner, label in ((1, instance, "renamed"), (2, instance._replace(map_index=1), None)):
        name = Attempts(str(tmp_path), owner, label)._name(number)
        attempts.begin()._replace(name=name).record_intent("slurm", 1.0, 1.0)
    latest = attempts.latest()
    assert latest is not None
    assert latest.directory.path == str(tmp_path / "dag" / "run" / "task" / "1")
    latest.directory.write_ended("collected")
    assert attempts.latest() is None
    assert attempts.begin().directory.path == str(tmp_path / "dag" / "run" / "task" / "3")
