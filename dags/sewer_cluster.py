"""The workflow of `workflows/digits_cluster.py` as a DAG: its heavy tasks are Slurm jobs.

Where there is no `sbatch`, `cluster="auto"` runs the same job scripts as processes of this machine. Interpreter and
working directory come from the connection `sewer_digits`, and so does the folder of the run directories, if it says
`run_dir`; on a cluster all nodes have to see the three of them.
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
