"""The workflow of `workflows/digits_cluster.py` as a DAG: its heavy tasks are Slurm jobs.

Without `sbatch`, `cluster="auto"` runs the same job scripts as local processes. The connection
`sewer_digits` sets the working directory, and an interpreter with the modules of `dags/digits`:

    export AIRFLOW_CONN_SEWER_DIGITS='{"conn_type": "sewer", "extra": {"python": "/opt/envs/digits/bin/python",
      "workdir": "/shared/digits", "run_dir": "/shared/sewer-runs"}}'
    airflow dags test sewer_cluster

On a laptop, any of your own folders will do, and `run_dir` can be omitted. On a cluster, all nodes must have access
to the three.
"""

import pendulum
from airflow.sdk import DAG

from airflow_provider_sewer.task_group import sewer_task_group

with DAG(
    "sewer_cluster",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    doc_md=__doc__,
    tags=["sewer", "example"],
):
    sewer_task_group(
        "workflows/digits_cluster.py",
        group_id="digits",
        sewer_conn_id="sewer_digits",
        cluster="auto",
        operator_kwargs={"poll_interval": 2},
    )
