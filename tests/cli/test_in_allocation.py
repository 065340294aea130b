"""`sppe run` inside of a Slurm job keeps to the part of the machine that the job was given."""

from __future__ import annotations

import os
import shlex
import sys

from .conftest import SPPE


def test_run_in_allocation_uses_its_gpu_and_cpus(sppe, slurm) -> None:
    """The first GPU of the node is another job's; as many tasks run at once as the job has CPUs there."""
    sppe.tasks(
        gpu="import os; print('sees', os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ.get('OMP_NUM_THREADS'))",
        one="import time; print('begins', flush=True); time.sleep(1); print('ends')",
        two="import time; print('begins', flush=True); time.sleep(1); print('ends')",
    )
    slurm.submit("sleep 600", "--gres=gpu:1", "-w", "n1")
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "3"}
    command = shlex.join([*SPPE, "run", "-p", "flow.py", "-i", sys.executable])
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items())

    job = slurm.submit(
        f"cd {shlex.quote(str(sppe.folder))}; echo allocated $CUDA_VISIBLE_DEVICES; {variables} {command}",
        "--gres=gpu:1", "-w", "n1", "--cpus-per-task=1",
    )  # fmt: skip

    slurm.wait_for(job, "COMPLETED", "FAILED")
    lines = [
        line for line in slurm.output(job).splitlines() if line.endswith(("begins", "ends")) or "[gpu] sees" in line
    ]
    assert "allocated 1\n" in slurm.output(job)
    assert "[gpu] sees 1 3" in lines
    assert [line.rpartition(" ")[2] for line in lines if "gpu" not in line] == ["begins", "ends"] * 2
