"""The cluster of the tests is a real Slurm, and does what it says."""

from __future__ import annotations


def test_a_job_runs(slurm) -> None:
    """A job runs on a node of the cluster and ends with its own exit code."""
    job = slurm.wait_for(slurm.submit("echo $SLURMD_NODENAME; exit 3"), "FAILED")

    assert job.exit_code == "3:0"
    assert slurm.output(job.id).strip() in slurm.nodes
