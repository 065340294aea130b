"""The workflow of `workflows/digits.py` as a DAG: one line expands it.

Interpreter and working directory come from the connection `sewer_digits`.
"""

import pendulum
from airflow.sdk import DAG

from airflow_provider_sewer.task_group import sewer_task_group

with DAG(
    "sewer_digits",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    doc_md=__doc__,
    tags=["sewer", "example"],
):
    sewer_task_group("workflows/digits.py", sewer_conn_id="sewer_digits")
