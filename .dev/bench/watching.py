"""Cost of watching 1,000 deferred Slurm jobs in one triggerer, compared with one poll per job.

It runs on a private local cluster, with the Slurm of the tests. The jobs are the tasks of one array and are held in the
queue. Then some are released, to measure the delay between a job's end and the trigger's event.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="bench-airflow-"))

import psutil  # noqa: E402

from airflow_provider_sewer.core.execution_settings import ExecutionSettings  # noqa: E402
from airflow_provider_sewer.core.serialization import slurm_to_data  # noqa: E402
from airflow_provider_sewer.core.slurm_settings import DEFAULTS  # noqa: E402
from airflow_provider_sewer.core.task import Task  # noqa: E402
from airflow_provider_sewer.slurm.attempts import TaskInstance  # noqa: E402
from airflow_provider_sewer.slurm.job_directory import JobDirectory  # noqa: E402
from airflow_provider_sewer.slurm.job_runner import JobRunner  # noqa: E402
from airflow_provider_sewer.slurm.job_spec import JobSpec  # noqa: E402
from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger  # noqa: E402
from tests.slurm_cluster.cluster import SlurmCluster  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

JOBS, RELEASED, SECONDS, SETTLES = 1000, 20, 60.0, 15.0
INTERVAL = DEFAULTS.poll_interval or 0.0

#: Interpreter of the jobs, which exits at once.
QUICK = "#!/bin/sh\necho done\n"


class Usage(NamedTuple):
    """CPU seconds used so far by this process, by its child commands, and by the controller."""

    own: float
    commands: float
    controller: float

    def since(self, before: Usage, intervals: float) -> dict[str, float]:
        """Return the CPU milliseconds per interval since ``before``."""
        used = {name: getattr(self, name) - getattr(before, name) for name in ("own", "commands", "controller")}
        return {f"{name}_cpu_ms_per_interval": round(1000 * value / intervals, 1) for name, value in used.items()}


def measure(jobs: int = JOBS, seconds: float = SECONDS) -> dict[str, Any]:
    """Return the figures.

    :param jobs: the number of jobs.
    :param seconds: how long the idle jobs are watched.
    """
    logging.disable(logging.INFO)  # log lines of each job would dominate the figures
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, SlurmCluster(Path(folder), nodes=3, cpus=8) as slurm:
        os.environ.update(slurm.env)
        for name in ("sbatch", "squeue"):
            slurm.put_in_front(name)
        memory = psutil.Process().memory_info().rss
        triggers = list(_registered(jobs, Path(folder)))
        return {
            "jobs": jobs,
            "interval_s": INTERVAL,
            **asyncio.run(_watch(slurm, triggers, seconds)),
            "memory_mb": round((psutil.Process().memory_info().rss - memory) / 1e6, 1),
            "sbatch_calls": slurm.counted("sbatch"),
            "one_poll_per_job": asyncio.run(_poll_each(slurm, [_id(trigger) for trigger in triggers])),
        }


def _registered(jobs: int, folder: Path) -> Iterator[SlurmJobTrigger]:
    """Register the instances of a mapped task for their array, and yield their triggers."""
    python = folder / "quick"
    python.write_text(QUICK)
    python.chmod(0o755)
    task = Task("task", "module").with_settings(ExecutionSettings.checked(python=str(python)))
    held = {"additional_parameters": {"hold": True}}
    # A constant interval, as for one poll per job; by default it grows.
    slurm = DEFAULTS._replace(slurm=held, run_dir=str(folder / "runs"), cluster="slurm", array=True, deferrable=True)
    slurm = slurm._replace(max_poll_interval=INTERVAL)
    with patch("os.fsync"):
        for index in range(jobs):
            planned = JobSpec(TaskInstance("bench", "run", "task", index, "0"), task, slurm, {}, 5.0, expected=jobs)
            waiting = JobRunner(planned, lambda *_: None, lambda _: None).submit_or_reattach()
            trigger = SlurmJobTrigger(waiting.to_dict(), "module", slurm_to_data(slurm._replace(slurm={})))
            trigger.trigger_id = index
            yield trigger


async def _watch(slurm: SlurmCluster, triggers: list[SlurmJobTrigger], seconds: float) -> dict[str, Any]:
    tasks = [asyncio.create_task(_delay(trigger)) for trigger in triggers]
    began = time.monotonic()
    await asyncio.to_thread(slurm.until, lambda: all(map(_id, triggers)), "the array")
    submitted = time.monotonic() - began
    await asyncio.sleep(SETTLES)
    before, queries = _usage(slurm), slurm.counted("squeue")
    await asyncio.sleep(seconds)
    used, queries = _usage(slurm).since(before, seconds / INTERVAL), slurm.counted("squeue") - queries
    array = (_id(triggers[0]) or "").partition("_")[0]
    await asyncio.to_thread(slurm.release, f"{array}_[0-{RELEASED - 1}]")
    delays = await asyncio.gather(*tasks[:RELEASED])
    for task in tasks[RELEASED:]:
        task.cancel()
    await asyncio.gather(*tasks[RELEASED:], return_exceptions=True)
    return {
        "watched_s": seconds,
        "squeue_calls": queries,
        "squeue_calls_per_interval": round(queries * INTERVAL / seconds, 2),
        **used,
        "submitted_after_s": round(submitted, 1),
        "end_to_event_median_s": round(statistics.median(delays), 2),
        "end_to_event_max_s": round(max(delays), 2),
    }


async def _delay(trigger: SlurmJobTrigger) -> float:
    """Return the seconds from the end of a job to the trigger's event."""
    async for event in trigger.run():
        record = JobDirectory(event.payload["job"]["directory"]).read_exit()
        assert record is not None, event.payload
        return time.time() - record.end
    raise AssertionError("no event")


async def _poll_each(slurm: SlurmCluster, ids: list[str | None]) -> dict[str, Any]:
    """Return the cost of one squeue per job and interval, eight at a time."""
    few = asyncio.Semaphore(8)

    async def poll(job_id: str | None) -> None:
        async with few:
            command = ("squeue", "-h", "-t", "all", "-j", str(job_id), "-o", "%T")
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            await process.communicate()

    slurm.take_away()
    before, began = _usage(slurm), time.monotonic()
    await asyncio.gather(*map(poll, ids))
    return {
        "squeue_calls_per_interval": len(ids),
        **_usage(slurm).since(before, 1),
        "one_round_s": round(time.monotonic() - began, 1),
    }


def _usage(slurm: SlurmCluster) -> Usage:
    own, children = (resource.getrusage(scope) for scope in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    daemons = [psutil.Process(pid) for pid in slurm.processes()]
    controller = sum(sum(each.cpu_times()[:2]) for each in daemons if each.name() == "slurmctld")
    return Usage(own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime, controller)


def _id(trigger: SlurmJobTrigger) -> str | None:
    return trigger.serialize()[1]["job"]["id"]


if __name__ == "__main__":
    for name, figure in measure().items():
        print(f"{name:>28}  {figure}")
