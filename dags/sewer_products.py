"""Two DAGs: one produces stale files, and the other draws a picture whenever the comparison was updated.

The products of `workflows/digits_products.py` are assets, so a DAG can be scheduled on them.
"""

import pendulum
from airflow.sdk import DAG

from airflow_provider_sewer import Dependency, Product
from airflow_provider_sewer.operators.assets import product_asset
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.task_group import sewer_task_group

COMPARISON = "build/products/comparison.json"

settings = {
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "catchup": False,
    "doc_md": __doc__,
    "tags": ["sewer", "example"],
}

with DAG("sewer_products", schedule=None, **settings):
    sewer_task_group(
        "workflows/digits_products.py",
        group_id="digits",
        sewer_conn_id="sewer_digits",
        operator_kwargs={"pool": "default_pool"},  # instead of the pool "cpu", which would have to be created first
    )

with DAG("sewer_products_report", schedule=[product_asset(COMPARISON, sewer_conn_id="sewer_digits")], **settings):
    PythonModuleOperator(
        task_id="report",
        module="digits.report",
        parameters_and_flags={"in": Dependency(COMPARISON), "out": Product("build/products/confusion.png")},
        sewer_conn_id="sewer_digits",
    )
