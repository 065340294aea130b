"""Delay between the end of a Slurm job and the end of its task, in a complete Airflow deployment."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from bench.clock import ROOT, CannotRun
from bench.rows import Figure, Row

if TYPE_CHECKING:
    from tests.airflow.deployment import Airflow
    from tests.slurm_cluster.cluster import SlurmCluster

_ENDS = "from a job's end to its task's end: `SlurmModuleOperator`"
_WAITS = "`BashOperator` with `sbatch --wait`"
ROWS = {
    "end_deferred": Row(f"{_ENDS}, deferred", _WAITS, "s"),
    "end_worker": Row(f"{_ENDS}, in a worker", _WAITS, "s"),
}
HOW = (
    "ends of tasks: an Airflow with LocalExecutor and SQLite, and the private cluster; medians of 6 jobs at once, of "
    "10 to 13 s"
)

#: Records the time of its end.
_MODULE = """\
    import sys, time
    time.sleep(float(sys.argv[4]))
    with open(sys.argv[2], "w") as file:
        file.write(str(time.time()))
    """
_DAGS = """\
    from airflow.sdk import DAG
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

    CALLS = [{"to": f"{FOLDER}/{{{{ dag.dag_id }}}}-{n}", "seconds": SECONDS + n / 2} for n in range(JOBS)]
    SAME = {"module": "ends", "python": PYTHON, "env": {"PYTHONPATH": FOLDER}, "run_dir": f"{FOLDER}/runs"}
    for name, deferrable in (("deferred", True), ("worker", False)):
        with DAG(name, schedule=None):
            SlurmModuleOperator.partial(task_id="job", deferrable=deferrable, **SAME).expand(parameters_and_flags=CALLS)
    with DAG("waits", schedule=None):
        ends = [f"{PYTHON} {FOLDER}/ends.py --to {call['to']} --seconds {call['seconds']}" for call in CALLS]
        BashOperator.partial(task_id="job").expand(
            bash_command=[f"sbatch --wait -o /dev/null --wrap '{command}'" for command in ends]
        )
    """


def measure(*, tiny: bool = False) -> dict[str, Figure]:
    """Return the figures.

    :param tiny: one short job each.
    :raises CannotRun: without Slurm.
    """
    if not shutil.which("slurmctld"):
        raise CannotRun("Slurm is not installed (apt-get install slurmctld slurmd slurm-client munge)")
    sys.path.insert(0, str(ROOT))
    from tests.airflow.deployment import Airflow
    from tests.slurm_cluster.cluster import SlurmCluster

    jobs, seconds = (1, 0) if tiny else (6, 10)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, SlurmCluster(Path(name), nodes=2, cpus=4) as slurm:
        folder = Path(name)
        dags = folder / "airflow" / "dags"
        dags.mkdir(parents=True)
        known = f"FOLDER, PYTHON, SECONDS, JOBS = {name!r}, {sys.executable!r}, {seconds}, {jobs}\n"
        (folder / "ends.py").write_text(dedent(_MODULE))
        (dags / "ends.py").write_text(known + dedent(_DAGS))
        with Airflow(folder / "airflow", {**_found_by(slurm), "PYTHONPATH": str(ROOT)}) as airflow:
            found = {dag: _delay(airflow, folder, dag, jobs) for dag in ("deferred", "worker", "waits")}
    return {
        "end_deferred": Figure(found["deferred"], found["waits"]),
        "end_worker": Figure(found["worker"], found["waits"]),
    }


def _found_by(slurm: SlurmCluster) -> dict[str, str]:
    path = [os.path.dirname(sys.executable), *slurm.env["PATH"].split(os.pathsep)]
    return {**slurm.env, "PATH": os.pathsep.join(path)}


def _delay(airflow: Airflow, folder: Path, dag: str, jobs: int) -> float:
    """Run a DAG and return the median seconds between the ends of its jobs and of its tasks."""
    run = airflow.trigger(dag)
    delays = []
    for index in range(jobs):
        airflow.wait_for_state(dag, run, "job", "success", map_index=index)
        ended = datetime.fromisoformat(airflow.task_instance(dag, run, "job", index)["end_date"]).timestamp()
        delays.append(ended - float((folder / f"{dag}-{index}").read_text()))
    return statistics.median(delays)
