"""Deployment of the drill: Airflow with two schedulers and two triggerers on PostgreSQL, and a Slurm cluster."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from drill.postgres import Postgres
from tests.airflow.deployment import PARTS, Airflow
from tests.slurm_cluster.cluster import SlurmCluster
from tests.slurm_cluster.packages import path_with_sbin

if TYPE_CHECKING:
    from typing import Self

_PARTS = {
    "api-server": PARTS["api-server"],
    "scheduler-1": PARTS["scheduler"],
    "scheduler-2": PARTS["scheduler"],
    "dag-processor": PARTS["dag-processor"],
    "triggerer-1": PARTS["triggerer"],
    "triggerer-2": PARTS["triggerer"],
}

#: A third to a tenth of Airflow's defaults, in about the same proportions.
_SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "12",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "90",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
}

#: As on a real cluster: a controller that hangs for a while does not consider nodes as down.
_SLURM_CONF = "SlurmdTimeout=300"

#: Wrapper of sbatch that is slow enough to be hit by a signal, before and after the submission.
_SLOW_SBATCH = """
sleep 0.3
{sbatch} "$@"
code=$?
sleep 0.3
exit $code
"""


class DrillAirflow(Airflow):
    """Airflow with parts that end now and then; waiting for a response continues meanwhile."""

    def trouble(self) -> str:
        """Return nothing, because ended parts are restarted."""
        return ""


class Stage:
    """Airflow and Slurm of the drill; a context manager that starts and stops them.

    :param folder: for all files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ending = ExitStack()
        self.slurm = SlurmCluster(folder / "slurm", nodes=2, cpus=64, memory_mb=64000, extra_conf=_SLURM_CONF)
        self.airflow: DrillAirflow

    def __enter__(self) -> Self:
        with self._ending:
            postgres = self._ending.enter_context(Postgres(self._folder / "postgres.log"))
            self._ending.enter_context(self.slurm)
            sbatch = shutil.which("sbatch", path=path_with_sbin())
            self.slurm.put_in_front("sbatch", _SLOW_SBATCH.format(sbatch=shlex.quote(str(sbatch))))
            path = [str(self.slurm.wrapper_folder), str(Path(sys.executable).parent), path_with_sbin()]
            env = {
                **_SETTINGS,
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
                "SLURM_CONF": str(self.slurm.conf),
                "PATH": os.pathsep.join(path),
            }
            self.airflow = DrillAirflow(self._folder / "airflow", env, parts=_PARTS)
            self._ending.callback(self._kill_airflow)
            self.airflow.start()
            self._ending = self._ending.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @property
    def sbatch(self) -> Path:
        """Return the sbatch path used by Airflow's processes."""
        return self.slurm.wrapper_folder / "sbatch"

    def _kill_airflow(self) -> None:
        """Kill all of Airflow: the evidence is complete, and a stopped process reacts only to SIGKILL."""
        self.airflow.kill_all()
        self.airflow.stop()
