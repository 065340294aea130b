"""Job that another version has submitted: an unreadable record is an error, and none of its data is lost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_sewer import Product, Task
from airflow_provider_sewer.core.errors import SewerError, UnreadableRecord
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_spec import JobSpec
from tests.waiting import wait_until

SOURCE = """
import sys
with open(sys.argv[2], "w") as file:
    file.write("made")
"""
KEPT = ["attempt", "task", "products", "job", "exit"]


def planned(folder: Path, product: str) -> JobSpec:
    """Plan a task whose template names its product in another way at each try."""
    (folder / "made.py").write_text(SOURCE)
    slurm = {"cluster": "local", "poll_interval": 0.2, "max_poll_interval": 0.2, "lost_after": 1.0}
    return JobSpec(
        instance=TaskInstance("dag", "run", "task", -1, "0"),
        task=Task("task", "made", {"out": Product(product)}).with_settings(
            ExecutionSettings.checked(python=sys.executable, env={"PYTHONPATH": str(folder)}, workdir=str(folder))
        ),
        slurm=SlurmSettings.checked(run_dir=str(folder / "runs"), **slurm).with_fallback(DEFAULTS),
        secret_env={},
        grace=1.0,
    )


def outcome(plan: JobSpec) -> Any:
    """Go on with the job, or submit one, and return its result, or its error."""
    run = JobRunner(plan, lambda *_: None, lambda _: None)
    try:
        return run.collect(run.follow(run.submit_and_wait()))
    except SewerError as error:
        return error


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    """Return the job directory of a job that has succeeded, and was not collected."""
    job = JobRunner(planned(tmp_path, "first.txt"), lambda *_: None, lambda _: None).submit_and_wait()
    # The job's script removes this file last, after its exit record.
    wait_until(lambda: job.directory.read_exit() and not os.path.exists(job.directory.alive), "the end of the job")
    return Path(job.directory.path)


def test_retry_commits_product_path_of_saved_task(attempt: Path, tmp_path: Path) -> None:
    """With any present value of the template."""
    assert not isinstance(outcome(planned(tmp_path, "second.txt")), SewerError)

    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["first.txt"]


def test_retry_reads_result_of_saved_task(attempt: Path, tmp_path: Path) -> None:
    """The job of a module has no result file; its task may be a function by now."""
    (attempt / "stdout.log").write_text("last line\n")
    record = json.loads((attempt / "exit.json").read_text())
    (attempt / "exit.json").write_text(json.dumps({**record, "module_stdout": [0, 10]}))
    now = planned(tmp_path, "first.txt")
    function = Task("task", function="made:main").with_settings(now.task.settings)

    assert outcome(now._replace(task=function)) == "last line"
    assert (tmp_path / "first.txt").read_text() == "made"


def test_process_that_submitted_reads_neither_task_nor_products(tmp_path: Path) -> None:
    """Both records are for other processes."""
    run = JobRunner(planned(tmp_path, "first.txt"), lambda *_: None, lambda _: None)
    job = run.submit_and_wait()
    for name in ("task", "products"):
        (Path(job.directory.path) / f"{name}.json").write_text("")

    run.collect(run.follow(job))

    assert (tmp_path / "first.txt").read_text() == "made"


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("way", ["newer", "truncated", "incomplete"])
def test_unreadable_record_keeps_job_and_product_for_retry(way: str, name: str, attempt: Path, tmp_path: Path) -> None:
    """The error names the record; with the record restored, the next try collects the job."""
    file = attempt / f"{name}.json"
    whole = file.read_text()
    fields = json.loads(whole)
    key = [*fields][1]
    changed = {
        "newer": json.dumps({**fields, "format": 2}),
        "truncated": whole[: len(whole) // 2],
        "incomplete": json.dumps({name: value for name, value in fields.items() if name != key}),
    }
    file.write_text(changed[way])
    is_made_up_for = name == "job" and way != "newer"  # the claim names the job

    error = outcome(planned(tmp_path, "second.txt"))

    if not is_made_up_for:
        assert isinstance(error, UnreadableRecord), error
        assert str(file) in str(error)
        assert not list(tmp_path.glob("*.txt"))
        file.write_text(whole)
        assert not isinstance(outcome(planned(tmp_path, "second.txt")), SewerError)
    assert [path.name for path in tmp_path.glob("*.txt")] == ["first.txt"]
    assert os.listdir(attempt.parent) == ["1"], "no other job was begun"


def test_unreadable_exit_record_of_a_cancelled_job_keeps_its_product(attempt: Path, tmp_path: Path) -> None:
    """The job may have succeeded before it was cancelled."""
    directory = JobDirectory(str(attempt))
    directory.write_cancelled()
    whole = Path(directory.exit).read_text()
    Path(directory.exit).write_text(whole.replace('"format": 1', '"format": 2'))

    assert isinstance(outcome(planned(tmp_path, "second.txt")), UnreadableRecord)
    Path(directory.exit).write_text(whole)
    assert not isinstance(outcome(planned(tmp_path, "second.txt")), SewerError)

    assert [path.name for path in tmp_path.glob("*.txt")] == ["first.txt"]


@pytest.mark.parametrize("name", ["attempt", "job", "ended", "exit"])
def test_unreadable_record_of_collected_job_submits_no_new_job(name: str, attempt: Path, tmp_path: Path) -> None:
    """Airflow may not have stored its result."""
    first, second = (planned(tmp_path, "first.txt"), planned(tmp_path, "first.txt"))
    first = first._replace(instance=first.instance._replace(try_number=1))
    second = second._replace(instance=second.instance._replace(try_number=2))
    assert not isinstance(outcome(first), SewerError)
    file = attempt / f"{name}.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 2'))

    assert isinstance(outcome(second), UnreadableRecord)

    assert os.listdir(attempt.parent) == ["1"]


def test_removed_job_directory_makes_retry_submit_new_job(attempt: Path, tmp_path: Path) -> None:
    """That is the way out which the error names."""
    (attempt / "task.json").write_text("{}")
    assert isinstance(outcome(planned(tmp_path, "second.txt")), UnreadableRecord)
    for file in attempt.iterdir():
        file.unlink()
    attempt.rmdir()

    assert not isinstance(outcome(planned(tmp_path, "second.txt")), SewerError)

    assert [path.name for path in tmp_path.glob("*.txt")] == ["second.txt"]
