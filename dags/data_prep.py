"""Single tasks of a workflow file as Airflow tasks, in a DAG that is otherwise written by hand."""

from pathlib import Path

import pendulum
from airflow.sdk import DAG, task

from airflow_provider_sewer import get_task_from_module, load_module
from airflow_provider_sewer.task_group import create_airflow_task


def get_tasks(gpu_index: int):
    module = load_module(Path(__file__).parent / "workflows" / "data_generation.py")

    t1 = get_task_from_module(module, "data_generation")
    t2 = get_task_from_module(module, "data_noising")

    env = {"CUDA_VISIBLE_DEVICES": str(gpu_index)}

    return (
        create_airflow_task(t1, env=env, sewer_conn_id="sewer_digits"),
        create_airflow_task(t2, env=env, sewer_conn_id="sewer_digits"),
    )


@task
def clean_up():
    print("Cleaning up...")


with DAG(
    "data_prep",
    description="Data preparation pipeline",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    tags=["sewer", "example"],
) as dag:
    data_generation, data_noising = get_tasks(0)
    data_generation() >> data_noising() >> clean_up()
