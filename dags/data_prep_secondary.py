"""The same tasks, run by plain `Task.run()` inside `@task.external_python`.

The outer interpreter must have airflow-provider-sewer; this example takes the worker's own. The modules
run in the interpreter of the connection `sewer_digits`. Prefer `dags/data_prep.py`: there Airflow
runs the module itself, so its result becomes an XCom, and its output has its own logger.
"""

import sys
from pathlib import Path

import pendulum
from airflow.sdk import DAG, task

workflow_file = str(Path(__file__).parent / "workflows" / "data_generation.py")
connection = "{{ conn.sewer_digits.extra_dejson['%s'] }}"
where = {"python": connection % "python", "workdir": connection % "workdir"}


@task.external_python(python=sys.executable, expect_airflow=False)
def data_generation(gpu_index, workflow_file, python, workdir):  # no type hints: only the source is sent
    from airflow_provider_sewer import get_task_from_module, load_module

    t1 = get_task_from_module(load_module(workflow_file), "data_generation")
    t1.run(path_to_python=python, workdir=workdir, env={"CUDA_VISIBLE_DEVICES": str(gpu_index)})


@task.external_python(python=sys.executable, expect_airflow=False)
def data_noising(gpu_index, workflow_file, python, workdir):
    from airflow_provider_sewer import get_task_from_module, load_module

    t2 = get_task_from_module(load_module(workflow_file), "data_noising")
    t2.run(path_to_python=python, workdir=workdir, env={"CUDA_VISIBLE_DEVICES": str(gpu_index)})


@task
def clean_up():
    print("Cleaning up...")


with DAG(
    "data_prep_secondary",
    description="Data preparation pipeline",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    tags=["sewer", "example"],
) as dag:
    gpu_available = 0

    data_generated = data_generation(gpu_available, workflow_file, **where)
    data_noised = data_noising(gpu_available, workflow_file, **where)

    data_generated >> data_noised >> clean_up()
