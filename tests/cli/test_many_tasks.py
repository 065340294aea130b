"""Many tasks at once where few open files are allowed: with `ulimit -n`, on this machine and on Slurm."""

from __future__ import annotations

import os
import signal

from .slurm_runs import Ended, on_slurm

__all__ = ["on_slurm"]


def test_j_option_is_limited_by_open_files(sppe) -> None:
    """Fewer tasks run at once than with -j alone, and a line names the limit and the reason."""
    sppe.tasks(**{f"t{number}": "print('done')" for number in range(12)})

    run = sppe.run("run", "-j", "12", through=["prlimit", "--nofile=120:"])

    assert run.returncode == 0, run.stderr
    assert "sppe: 3 tasks at once instead of 12: `ulimit -n` (open files) is 120\n" in run.stderr
    assert run.stdout.count("done") == 12


def test_pending_slurm_jobs_hold_no_open_files(on_slurm) -> None:
    """A hundred jobs are in the queue, of a run that may open 120 files."""
    on_slurm.sppe.write("wait.py", "")
    on_slurm.sppe.write(
        "flow.py",
        """
        from airflow_provider_sewer import Task
        for number in range(100):
            Task(f"t{number}", "wait", slurm={"additional_parameters": {"hold": True}})
        """,
    )
    run = on_slurm.start(through=["prlimit", "--nofile=120:"])
    on_slurm.slurm.until(lambda: len(on_slurm.jobs()) == 100, "a hundred jobs")
    on_slurm.slurm.until(lambda: len(os.listdir(f"/proc/{run.pid}/fd")) < 50, "files to be closed")
    run.send_signal(signal.SIGTERM)
    ended = Ended(run)

    assert ended.code == 143
    assert "Too many open files" not in ended.stderr
    assert "failed after" not in ended.stderr
    assert {job.state for job in on_slurm.jobs()} == {"CANCELLED"}
