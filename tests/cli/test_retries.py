"""``sppe run --retries``: failed tasks are run again, here and as jobs that request more."""

from __future__ import annotations

import json

import pytest

from .slurm_runs import Ended, on_slurm

__all__ = ["on_slurm"]

ALONE = {"nodelist": "n3", "exclusive": True}
RULES = {"SlurmPreempted": {"partition": "main", "tries": 1}}
#: Fails the first two times that it runs.
FAILS_TWICE = """
    import os, sys
    from pathlib import Path
    mark = Path("tries")
    tries = len(mark.read_text()) if mark.exists() else 0
    mark.write_text("x" * (tries + 1))
    Path(sys.argv[2]).write_text(f"try {tries + 1}")
    print("this is try", tries + 1)
    sys.exit(tries < 2)
"""


@pytest.fixture
def flow(sppe):
    """Write a workflow with a task that fails twice, and one after it."""
    sppe.tasks(fails=FAILS_TWICE, reads="import sys; print('read', open(sys.argv[2]).read())")
    sppe.write(
        "flow.py",
        """
from airflow_provider_sewer import Dependency, Product, Task
first = Task("first", "fails_module", {"out": Product("out.txt")})
second = Task("second", "reads_module", {"in": Dependency("out.txt")})
(first >> second).run()
""",
    )
    return sppe


def test_retries_run_a_failed_task_again(flow):
    """Its product is that of the try that succeeded, and the log has all tries."""
    run = flow.run("run", "--retries", "2", "--log-dir", "logs")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "[first] this is try 1",
        "[first] this is try 2",
        "[first] this is try 3",
        "[second] read try 3",
    ]
    log = (flow.folder / "logs" / "first.log").read_text()
    assert "sewer| WARNING: Try 2 of 3 follows: fails_module failed with exit code 1" in log
    assert "sewer| WARNING: Try 3 of 3 follows: " in log
    assert "succeeded after" in log
    assert "(try 3)" in log
    assert "try 3" in run.stderr


def test_retries_end_at_their_number(flow):
    """The failed task has failed then, and the next one does not run."""
    run = flow.run("run", "--retries", "1")
    assert run.returncode == 1
    assert run.stdout.splitlines() == ["[first] this is try 1", "[first] this is try 2"]
    assert "[second] upstream failed" in run.stderr
    assert not (flow.folder / "out.txt").exists()


def test_status_and_report_show_tries(flow):
    """Both read them from the records of the run."""
    flow.run("run", "--retries", "2", "--log-dir", "logs")
    status = flow.run("status").stdout
    [line] = [line for line in status.splitlines() if line.startswith("  first")]
    assert line.endswith("try 3")
    report = json.loads(flow.run("report", "logs", "--format", "json").stdout)
    assert {task["task"]: task["tries"] for task in report["tasks"]} == {"first": 3, "second": 1}
    assert "(try 3)" in flow.run("report", "logs").stdout


def test_retries_from_the_configuration(flow):
    """As a setting of the project, which the command line overrides."""
    flow.write("sewer.toml", "retries = 2\n")
    assert flow.run("run").returncode == 0
    (flow.folder / "tries").unlink()
    assert flow.run("run", "--retries", "0").returncode == 1


def test_final_errors_are_not_retried(flow):
    """A missing input stays missing."""
    flow.write(
        "flow.py",
        """
from airflow_provider_sewer import External, Task
Task("first", "reads_module", {"in": External("missing.txt")}).run()
""",
    )
    run = flow.run("run", "--retries", "2")
    assert run.returncode == 2
    assert "Try 2" not in run.stderr


def test_retry_of_a_job_requests_more(on_slurm) -> None:
    """As under Airflow; the first job has not enough memory, the second one has."""
    on_slurm.flow(
        learns="""# slurm={'mem_gb': 0.25}, retry_with={'SlurmOutOfMemory': {'mem_gb': 2}}
        if os.environ["SLURM_MEM_PER_NODE"] == "256":
            say("started")
            wait()
        print("enough")
        """
    )
    process = on_slurm.start("--retries", "1")
    on_slurm.lifeline.expect("started")
    on_slurm.slurm.out_of_memory(on_slurm.one_job("learns").id)
    run = Ended(process)
    assert run.code == 0, run.stderr
    assert run.stdout == "[learns] enough\n"
    first, second = on_slurm.jobs("learns")
    assert [memory(on_slurm, job) for job in (first, second)] == ["256M", "512M"]
    assert "[learns] Retrying with mem_gb=0.5 (was 0.25): out of memory" in run.stderr

    again = on_slurm.start("--retries", "1")  # another run begins with the request of the task
    on_slurm.slurm.until(lambda: len(on_slurm.jobs("learns")) == 3, "the third job")
    on_slurm.open("go")
    assert Ended(again).code == 0
    assert memory(on_slurm, on_slurm.jobs("learns")[2]) == "256M"


def test_preempted_job_has_extra_tries(on_slurm) -> None:
    """They are not those of --retries."""
    on_slurm.flow(
        moves=f"""# slurm={{'partition': 'scavenge', **{ALONE}}}, retry_with={RULES}
        if os.environ["SLURM_JOB_PARTITION"] == "scavenge":
            say("started")
            wait()
        print("done")
        """
    )
    process = on_slurm.start()
    on_slurm.lifeline.expect("started")
    on_slurm.slurm.submit("true", "--exclusive", "--nodelist=n3")
    run = Ended(process)
    assert run.code == 0, run.stderr
    assert run.stdout == "[moves] done\n"
    assert "preemption (extra try 1 of 1)" in run.stderr
    assert len(on_slurm.jobs("moves")) == 2


def test_retries_keep_jobs_from_being_submitted_ahead(on_slurm) -> None:
    """A job that waits for the first try of another one would never start."""
    on_slurm.flow(a="print('a')", b="# depends_on=a\nprint('b')")
    run = on_slurm.run("--ahead", "--retries", "1")
    assert run.code == 0, run.stderr
    assert "a retry of 'a' is another job than the one that it would wait for" in run.stderr


def memory(on_slurm, job) -> str:
    """Return the requested memory of a job, by Slurm's own account."""
    words = on_slurm.slurm.command("scontrol", "show", "job", "-o", job.id).split()
    return next(word.partition("=")[2] for word in words if word.startswith("MinMemoryNode="))
