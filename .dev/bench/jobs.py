"""Cost of waiting for 1,000 Slurm jobs."""

from __future__ import annotations

import shutil

from bench.clock import CannotRun
from bench.rows import Figure, Row

_WATCHING = "watching 1,000 deferred Slurm jobs in one triggerer, an interval"
_POLLING = "one poll for each job"
ROWS = {
    "jobs_sbatch": Row("submitting 1,000 mapped Slurm tasks as an array: `sbatch` calls", "one for each job", ""),
    "jobs_squeue": Row(f"{_WATCHING}: `squeue` calls", _POLLING, ""),
    "jobs_cpu": Row(f"{_WATCHING}: CPU of the triggerer and its child processes", _POLLING, "ms"),
    "jobs_controller": Row(f"{_WATCHING}: CPU of Slurm's controller", _POLLING, "ms"),
    "jobs_memory": Row("memory of the triggerer for these", "", "MB"),
    "jobs_delay": Row("from a job's end to the event that ends its task", "", "s"),
}
HOW = (
    "jobs: elements of one array on a private Slurm cluster of this machine, watched for a minute while they wait in "
    "the queue. The interval is 5 s all the time; it would grow. The end is the median of 20 that end after that. Then "
    "follows one round of polls, eight at a time"
)


def measure(*, tiny: bool = False) -> dict[str, Figure]:
    """Return the figures.

    :param tiny: few jobs, for a short time.
    :raises CannotRun: without Slurm.
    """
    if not shutil.which("slurmctld"):
        raise CannotRun("Slurm is not installed (apt-get install slurmctld slurmd slurm-client munge)")
    from bench import watching

    if tiny:
        watching.SETTLES = 1.0
    found = watching.measure(25, 2.0) if tiny else watching.measure()
    each = found["one_poll_per_job"]
    return {
        "jobs_sbatch": Figure(found["sbatch_calls"], found["jobs"]),
        "jobs_squeue": Figure(found["squeue_calls_per_interval"], each["squeue_calls_per_interval"]),
        "jobs_cpu": Figure(_cpu(found), _cpu(each)),
        "jobs_controller": Figure(found["controller_cpu_ms_per_interval"], each["controller_cpu_ms_per_interval"]),
        "jobs_memory": Figure(found["memory_mb"]),
        "jobs_delay": Figure(found["end_to_event_median_s"]),
    }


def _cpu(figures: dict[str, float]) -> float:
    return figures["own_cpu_ms_per_interval"] + figures["commands_cpu_ms_per_interval"]
