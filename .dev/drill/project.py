"""Project of the drill: a module, and a DAG file with a third of the tasks of each kind."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from drill.faults import Entry

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

DAG_IDS = ("drill_worker", "drill_deferred", "drill_array")

#: Writes numbered lines for some seconds. The module itself writes the ledger, independently of Airflow, Slurm and this
#: package: one line for each start, SIGTERM and end, each with a single write.
MODULE = """
import argparse, json, os, signal, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
for name in ("task", "seconds", "ledger", "out"):
    parser.add_argument(f"--{name}")
args = parser.parse_args()
job, result = os.environ["SLURM_JOB_ID"], Path(os.environ["SEWER_RESULT_FILE"])
ledger = os.open(args.ledger, os.O_WRONLY | os.O_APPEND)

def note(event, **more):
    entry = {"task": args.task, "job": job, "attempt": result.parent.name, "event": event, "time": time.time(), **more}
    os.write(ledger, (json.dumps(entry) + "\\n").encode())

def end(number, frame):
    note("signal")
    sys.exit(143)

signal.signal(signal.SIGTERM, end)
note("start")
began, lines = time.monotonic(), {"stdout": 0, "stderr": 0}

def write(stream):
    print(f"{args.task} {job} {lines[stream]}", file=getattr(sys, stream))
    lines[stream] += 1

for _ in range(100):
    write("stdout")
while time.monotonic() - began < float(args.seconds):
    write("stdout")
    if lines["stdout"] % 5 == 0:
        write("stderr")
    time.sleep(0.1)
if args.out:
    Path(args.out).write_text(job)
result.write_text(json.dumps({"job": job}))
note("end", lines=lines)
"""

#: Runs follow each other until the given time, so that tasks of each age exist during the whole drill.
DAGS = """
from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_sewer import Product
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

COUNT = {count!r}
TASK = "{{{{ dag.dag_id }}}}/{{{{ run_id }}}}/{{{{ ti.task_id }}}}/{{{{ ti.map_index }}}}"
ALL = dict(
    module="drill_lines",
    python={python!r},
    env={{"PYTHONPATH": {modules!r}}},
    run_dir={run_dir!r},
    cluster="slurm",
    poll_interval=1,
    max_poll_interval=5,
    lost_after=60,
    array_wait=5,
    retries=10,
    retry_delay=timedelta(seconds=2),
)

def dag(dag_id):
    return DAG(
        dag_id,
        schedule="@continuous",
        start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
        end_date=datetime.fromisoformat({end!r}),
        catchup=False,
        max_active_runs=1,
        max_active_tasks=64,
        max_consecutive_failed_dag_runs=0,
    )

def arguments(index):
    return {{"task": TASK, "seconds": 5 + index * 11 % 36, "ledger": {ledger!r}}}

def with_product(index):
    return {{"out": Product({products!r} + "/{{{{ run_id }}}}/" + f"job_{{index}}.txt")}} if index % 2 else {{}}

for dag_id, deferrable in (("drill_worker", False), ("drill_deferred", True)):
    with dag(dag_id):
        for index in range(COUNT):
            SlurmModuleOperator(
                task_id=f"job_{{index}}",
                parameters_and_flags={{**arguments(index), **with_product(index)}},
                deferrable=deferrable,
                **ALL,
            )
with dag("drill_array"):
    SlurmModuleOperator.partial(task_id="jobs", deferrable=True, array=True, **ALL).expand(
        parameters_and_flags=[arguments(index) for index in range(COUNT)]
    )
"""


class Project:
    """The files of the project.

    :param folder: for all of them but the DAG file.
    """

    def __init__(self, folder: Path) -> None:
        self._modules = folder / "modules"
        self._run_dir = folder / "runs"
        self._products = folder / "products"
        self._ledger = folder / "ledger.jsonl"

    def write_modules(self) -> None:
        """Write the module and an empty ledger."""
        self._modules.mkdir(parents=True)
        (self._modules / "drill_lines.py").write_text(MODULE)
        self._ledger.touch()

    def write_dags(self, folder: Path, tasks: int, end: datetime) -> None:
        """Write the DAG file; from then on, Airflow runs its DAGs.

        :param folder: the DAGs folder.
        :param tasks: the number of tasks in one run of all DAGs; a third for each kind.
        :param end: the time from which on no run begins.
        """
        text = DAGS.format(
            count=max(1, tasks // len(DAG_IDS)),
            python=sys.executable,
            modules=str(self._modules),
            run_dir=str(self._run_dir),
            ledger=str(self._ledger),
            products=str(self._products),
            end=end.isoformat(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        # Atomic, for the DAG processor.
        fresh = folder / ".drill.new"
        fresh.write_text(text)
        fresh.rename(folder / "drill.py")

    def ledger(self) -> list[Entry]:
        """Return all entries of the ledger."""
        return [Entry(**json.loads(line)) for line in self._ledger.read_text().splitlines()]

    def has_product(self, task: str) -> bool | None:
        """Return whether the product of a task instance exists; ``None`` if it has no product."""
        dag_id, run_id, task_id, _ = task.split("/")
        if dag_id == "drill_array" or int(task_id.removeprefix("job_")) % 2 == 0:
            return None
        return (self._products / run_id / f"{task_id}.txt").exists()
