"""``sppe clean``: it removes old logs, states and job directories, and nothing in use."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from airflow_provider_sewer.slurm.job_directory import JobDirectory

OLD = time.time() - 40 * 24 * 3600
HOLD = """
    import fcntl, os
    life = os.open({lifeline!r}, os.O_WRONLY)
    os.write(life, b"here")
    fcntl.flock(open({gate!r}), fcntl.LOCK_SH)
"""


def make_old(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (OLD, OLD))


def kept(folder: Path) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name}" for path in folder.glob(".sewer/*/*"))


def attempt(run_dir: Path, name: str, *, is_closed: bool) -> Path:
    directory = JobDirectory(str(run_dir / "flow" / "series" / name / "1"))
    directory.create()
    Path(directory.path, "attempt.json").write_text("{}")
    if is_closed:
        directory.write_ended("collected")
    return Path(directory.path)


def test_clean_without_yes_shows_paths_to_remove(sppe) -> None:
    """Without a terminal and without --yes, nothing is removed."""
    sppe.tasks(first="pass")
    sppe.run("run")
    make_old(sppe.folder / ".sewer")
    before = kept(sppe.folder)

    done = sppe.run("clean")

    assert done.returncode == 0
    assert "logs             40 days" in done.stdout
    assert "state            40 days" in done.stdout
    assert "Pass --yes to remove them" in done.stdout
    assert kept(sppe.folder) == before


def test_clean_removes_only_old_files(sppe) -> None:
    sppe.tasks(first="pass")
    sppe.run("run")
    make_old(sppe.folder / ".sewer")
    sppe.run("run", "--state", ".sewer/state/new.jsonl")

    done = sppe.run("clean", "--yes")

    assert done.returncode == 0, done.stderr
    assert len(kept(sppe.folder)) == 2
    assert "state/new.jsonl" in kept(sppe.folder)


@pytest.mark.parametrize("answer", ["y", "n"])
def test_clean_asks_on_a_terminal(answer: str, sppe, terminal) -> None:
    sppe.tasks(first="pass")
    sppe.run("run")
    make_old(sppe.folder / ".sewer")
    window = terminal(24, 200)
    clean = window.start(sppe, "clean")
    window.expect(lambda text: "Remove them (" in text)

    window.type(answer.encode() + b"\n")

    assert clean.wait(timeout=60) == 0
    assert (kept(sppe.folder) == []) is (answer == "y")


def test_clean_keeps_files_of_a_running_sppe(sppe, lifeline, gate) -> None:
    """However old they are: a task may be silent for a month."""
    sppe.tasks(first=HOLD.format(lifeline=lifeline.path, gate=gate.path))
    run = sppe.start("run")
    lifeline.expect("here")
    make_old(sppe.folder / ".sewer")
    before = kept(sppe.folder)

    done = sppe.run("clean", "--yes")
    gate.open()
    run.communicate(timeout=60)

    assert done.stdout == "Nothing is older than 30 days\n"
    assert kept(sppe.folder) == before
    assert run.returncode == 0


def test_clean_removes_closed_attempts_and_keeps_open_ones(sppe) -> None:
    """A job that is submitted and not collected may still run, or may be collected by a resumed run."""
    runs = sppe.folder / "runs"
    closed, is_open = attempt(runs, "a", is_closed=True), attempt(runs, "b", is_closed=False)
    make_old(runs)

    sppe.run("clean", "--run-dir", "runs", "--yes")

    assert not closed.parent.exists()
    assert is_open.exists()


def test_clean_keeps_attempts_below_a_folder_that_others_can_write(sppe) -> None:
    """Another user could put a link to other files of this user in its place."""
    runs = sppe.folder / "runs"
    closed = attempt(runs, "a", is_closed=True)
    make_old(runs)
    closed.parent.chmod(0o777)

    done = sppe.run("clean", "--run-dir", "runs", "--yes")

    assert done.stdout == "Nothing is older than 30 days\n"
    assert closed.exists()


def test_clean_keeps_state_of_run_that_may_have_left_jobs(sppe) -> None:
    sppe.tasks(first="pass")
    state = sppe.folder / ".sewer/state/s.jsonl"
    sppe.run("run", "--state", str(state))
    text = state.read_text().replace('"log_dir"', '"run_dir": "/runs", "log_dir"', 1)
    state.write_text("".join(line for line in text.splitlines(keepends=True) if "sewer_end" not in line))
    make_old(sppe.folder / ".sewer")

    done = sppe.run("clean", "--yes")

    assert "s.jsonl is kept: the jobs of its last run may still run" in done.stderr
    assert state.exists()


def test_own_folders_are_ignored_by_git(sppe) -> None:
    """Those of logs and states, and those beside products."""
    sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Product, Task
        Task("a", function="steps:a", kwargs={"path": Product("build/a.txt")})
        """,
    )
    sppe.write("steps.py", "def a(path): open(path, 'w').close()")
    subprocess.run(["git", "init", "-q", "."], cwd=sppe.folder, check=True)

    assert sppe.run("run").returncode == 0

    listed = ["git", "status", "--porcelain", "-uall"]
    shown = subprocess.run(listed, cwd=sppe.folder, capture_output=True, text=True, check=True).stdout
    assert "?? build/a.txt" in shown
    assert ".sewer" not in shown


def test_job_directories_are_ignored_by_git(tmp_path) -> None:
    attempt(tmp_path / ".sewer/runs", "a", is_closed=True)

    assert (tmp_path / ".sewer/.gitignore").read_text() == "*\n"
    assert not (tmp_path / ".sewer/runs/.gitignore").exists()
