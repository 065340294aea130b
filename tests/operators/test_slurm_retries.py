"""Retries of SlurmModuleOperator that request more than the attempt before."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest

from tests.waiting import wait_until

AGAIN = {"retries": 1, "retry_delay": timedelta(0)}
#: Waits on the first attempt for its end by Slurm, and prints the requested memory on the next one.
WAITS_ONCE = """
    import os, subprocess, sys, time
    mark = {mark!r}
    tries = int(open(mark).read()) if os.path.exists(mark) else 0
    open(mark, "w").write(str(tries + 1))
    if tries < {failures}:
        open(mark + f"-{{tries}}", "w").write(os.environ["SLURM_JOB_ID"])
        time.sleep(600)
    print("better now")
"""


@pytest.fixture
def log(request):
    """Return a function that returns the log lines since its last call."""
    return request.getfixturevalue("said")


@pytest.fixture
def killed(tmp_path, module):
    """Return a function that writes a module which waits to be killed for some tries, and then succeeds."""

    def write(failures: int = 1) -> dict:
        return module(WAITS_ONCE.format(mark=str(tmp_path / "tries"), failures=failures))

    return write


@pytest.fixture
def kill(tmp_path, on_slurm):
    """Return a function that lets one job after the other end in a way, in the background."""

    def start(*ways) -> threading.Thread:
        def run() -> None:
            for number, way in enumerate(ways):
                started = tmp_path / f"tries-{number}"
                wait_until(lambda path=started: path.exists() and path.read_text(), "the job has started")
                way(started.read_text())

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return thread

    threads: list = []
    yield start
    for thread in threads:
        thread.join(120)


def asked(on_slurm, directory) -> dict:
    """Return the request of the job of a job directory, by Slurm's own account."""
    job_id = json.loads((directory / "job.json").read_text())["id"]
    text = on_slurm.command("scontrol", "show", "job", "-o", job_id)
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def test_retry_after_out_of_memory_requests_more(killed, kill, on_slurm, run_job, deferrable, log, run_directories):
    """The second job has twice the memory, by Slurm's own account, and the task's log explains it."""
    kill(on_slurm.out_of_memory)
    arguments = {"slurm": {"mem_gb": 0.25}, "retry_with": {"SlurmOutOfMemory": {"mem_gb": 2.0}}}
    assert run_job(deferrable=deferrable, **AGAIN, **arguments, **killed()).results["job"] == "better now"
    assert [asked(on_slurm, each)["MinMemoryNode"] for each in run_directories()] == ["256M", "512M"]
    assert "Retrying with mem_gb=0.5 (was 0.25): out of memory" in log()
