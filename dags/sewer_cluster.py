"""The workflow of `workflows/digits_cluster.py` as a DAG: its heavy tasks are Slurm jobs.

Where there is no `sbatch`, `cluster="auto"` runs the same job scripts as processes of this machine. The connection
`sewer_digits` says the interpreter, which has the modules of `dags/digits` installed, and the working directory:

    export AIRFLOW_CONN_SEWER_DIGITS='{"conn_type": "sewer", "extra": {"python": "/opt/envs/digits/bin/python",
      "workdir": "/shared/digits", "run_dir": "/shared/sewer-runs"}}'
    airflow dags test sewer_cluster

On a laptop any folders of your own will do and `run_dir` can be left out. On a cluster all nodes have to
see the three.
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
