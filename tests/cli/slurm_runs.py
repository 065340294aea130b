"""`sppe run --on slurm` on a real cluster, run to its end or killed on the way."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess

    from tests.slurm_cluster.cluster import SlurmCluster

QUICKLY = ("--slurm", "poll_interval=0.3", "--slurm", "max_poll_interval=0.6")
ACTIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"}
LONG = 180


class OnSlurm:
    """`sppe run --on slurm` on a real cluster, in a folder that its nodes see."""

    def __init__(self, sppe: Any, slurm: SlurmCluster, lifeline: Any) -> None:
        self.sppe = sppe
        self.slurm = slurm
        self.lifeline = lifeline

    def flow(self, tail: str = "", **tasks: str) -> None:
        """Write a module for each task, and a workflow file; a task's arguments are the first line of its source.

        A module reports to the test with `say(word)`, and `wait()` returns when the test creates a file.
        """
        lines = ["from airflow_provider_sewer import Dependency, Product, Task"]
        for name, source in tasks.items():
            first, _, rest = source.partition("\n")
            has_arguments = first.startswith("# ")
            arguments = first.removeprefix("# ") if has_arguments else ""
            self.sppe.write(
                f"{name}_module.py",
                PRELUDE.format(life=self.lifeline.path) + textwrap.dedent(rest if has_arguments else source),
            )
            lines.append(f"{name} = Task({name!r}, '{name}_module', {arguments})")
        self.sppe.write("flow.py", "\n".join([*lines, tail]))

    def start(self, *options: str, **more: Any) -> subprocess.Popen[str]:
        """Start it, with short poll intervals."""
        env = {**self.slurm.env, **more.pop("env", {})}
        return self.sppe.start("run", "--on", "slurm", "--run-dir", "runs", *QUICKLY, *options, env=env, **more)

    def run(self, *options: str, **more: Any) -> Ended:
        """Run it to its end."""
        return Ended(self.start(*options, **more))

    def open(self, name: str) -> None:
        """Create the file that modules wait for."""
        (self.sppe.folder / name).touch()

    def jobs(self, task: str = "") -> list[Any]:
        """Return all jobs, ended ones included, of a task of this workflow."""
        attempts = [json.loads(path.read_text()) for path in self.sppe.folder.glob("runs/*/*/*/*/attempt.json")]
        names = {each["name"] for each in attempts}
        return [job for job in self.slurm.jobs(f".{task}") if job.name in names]

    def one_job(self, task: str) -> Any:
        """Return the only job of a task, ended or not."""
        jobs = self.jobs(task)
        assert len(jobs) == 1, jobs
        return jobs[0]

    def has_saved_offset(self) -> bool:
        """Return whether a job directory has the offset of printed output."""
        states = [json.loads(path.read_text()) for path in self.sppe.folder.glob("runs/*/*/*/*/log-offsets.json")]
        return any(state["stdout"]["offset"] for state in states)

    def queue_is_empty(self) -> bool:
        """Return whether no job is pending or running."""
        return not [job for job in self.jobs() if job.state in ACTIVE]

    def dependency(self, job: Any) -> str:
        """Return the dependency of a job in Slurm."""
        words = self.slurm.command("scontrol", "show", "job", job.id).split()
        return next(word.partition("=")[2] for word in words if word.startswith("Dependency="))


class Ended:
    """Result of a run."""

    def __init__(self, run: subprocess.Popen[str]) -> None:
        self.stdout, self.stderr = run.communicate(timeout=LONG)
        self.code = run.returncode
        assert "Traceback" not in self.stderr, self.stderr


PRELUDE = """\
import os, sys, time
def say(word):
    global life
    life = open({life!r}, "w", buffering=1)
    print(word, file=life)
def wait(name="go"):
    while not os.path.exists(name): time.sleep(0.05)
"""


@pytest.fixture
def on_slurm(sppe: Any, slurm: SlurmCluster, lifeline: Any) -> OnSlurm:
    """Return a runner of workflows on a cluster."""
    return OnSlurm(sppe, slurm, lifeline)


def killed(on_slurm: OnSlurm, *options: str, **tasks: str) -> None:
    """Start a run, and kill it when its first job has reported and its output is printed."""
    on_slurm.flow(**tasks)
    run = on_slurm.start(*options)
    on_slurm.lifeline.expect("here")
    on_slurm.slurm.until(on_slurm.has_saved_offset, "a saved offset")
    if "--ahead" in options:
        on_slurm.slurm.until(lambda: len(on_slurm.jobs()) == len(tasks), "the jobs of all tasks")
    run.kill()
    run.wait()
