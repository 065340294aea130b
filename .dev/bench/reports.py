"""Cost of a report on 1,000 Slurm jobs with the figures of Slurm's accounting."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.clock import ROOT, CannotRun
from bench.rows import Figure, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.slurm_cluster.cluster import SlurmCluster

_REPORT, _PEER = "a report on a run of 1,000 Slurm jobs: `sppe report`", "one `sacct` for each job"
ROWS = {
    "reports_sacct": Row(f"{_REPORT}, `sacct` calls", _PEER, ""),
    "reports_time": Row(_REPORT, _PEER, "s", at_most=1),
}
HOW = (
    "report: jobs of one array on a private Slurm cluster of this machine with accounting, after their end; the first "
    "report, which queries accounting. The time of one `sacct` for each job is that of 20 jobs, times 50"
)
_JOBS, _SAMPLE, _PATIENCE = 1000, 20, 1800.0
_SPPE = "from airflow_provider_sewer.cli.main import main; main()"


def measure(*, tiny: bool = False) -> dict[str, Figure]:
    """Return the figures.

    :param tiny: few jobs.
    :raises CannotRun: without Slurm.
    """
    if not shutil.which("slurmdbd"):
        raise CannotRun("Slurm is not installed (apt-get install slurmctld slurmd slurm-client munge slurmdbd)")
    sys.path.insert(0, str(ROOT))
    from tests.slurm_cluster.cluster import SlurmCluster

    jobs = 25 if tiny else _JOBS
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        SlurmCluster(Path(folder), accounting=True, cpus=64) as slurm,
    ):
        ids = _ended_jobs(slurm, jobs)
        each = _seconds(lambda: [slurm.command("sacct", "-nP", "-j", job_id) for job_id in ids[:_SAMPLE]])
        _write_run(Path(folder), ids)
        slurm.put_in_front("sacct")
        report = [sys.executable, "-c", _SPPE, "report", "run", "--format", "tsv", "-o", "report.tsv"]
        env = {**os.environ, **slurm.env, "PYTHONPATH": str(ROOT)}
        seconds = _seconds(lambda: subprocess.run(report, cwd=folder, env=env, check=True))
        rows = Path(folder, "report.tsv").read_text().splitlines()
        if len(rows) != jobs + 1 or slurm.counted("sacct") > 1:
            raise RuntimeError(f"{len(rows) - 1} rows from {slurm.counted('sacct')} sacct")
        return {
            "reports_sacct": Figure(slurm.counted("sacct"), jobs),
            "reports_time": Figure(seconds, each / _SAMPLE * jobs),
        }


def _ended_jobs(slurm: SlurmCluster, jobs: int) -> list[str]:
    """Run jobs, and return their ids once accounting has their ends."""
    array = slurm.submit("true", f"--array=0-{jobs - 1}", "--job-name=bench", "--mem=1M")
    query = ("sacct", "-nPX", "--format=JobID,State", "-j", array)

    def ended() -> list[str]:
        rows = [line.split("|") for line in slurm.command(*query).splitlines()]
        return [job_id for job_id, state in rows if state == "COMPLETED"]

    slurm.until(lambda: len(ended()) == jobs, "the jobs in accounting", _PATIENCE)
    return ended()


def _write_run(folder: Path, ids: list[str]) -> None:
    """Write the record of a run with these jobs, as `sppe run --on slurm` leaves it."""
    names = [f"task_{number}" for number in range(len(ids))]
    tasks = {name: {"target": "module", "upstream": [], "log": f"{name}.log"} for name in names}
    lines = [{"sewer_run": 1, "workflow": "bench", "file": "/bench.py", "at": 1.0, "tasks": tasks}]
    for name, job_id in zip(names, ids, strict=True):
        end = {"event": "ended", "task": name, "at": 3.0, "state": "succeeded", "seconds": 1.0, "reason": ""}
        job = {"job_id": job_id, "job_name": "bench", "directory": "", "started": 2.0, "exit_class": "success"}
        lines.append({**end, **job, "used": {"elapsed": 1.0}, "requested": {"cpus": 1.0, "mem_gb": 1.0}})
    (folder / "run").mkdir()
    text = "".join(f"{json.dumps(line)}\n" for line in [*lines, {"event": "end", "at": 4.0}])
    (folder / "run" / "run.jsonl").write_text(text)


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
