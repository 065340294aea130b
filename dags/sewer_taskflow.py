"""TaskFlow with modules: functions return module parameters, and a workflow is mapped over another task's list.

Interpreter and working directory come from the connection `sewer_digits`.
"""

import pendulum
from airflow.sdk import DAG, task

from airflow_provider_sewer import Product
from airflow_provider_sewer.task_group import sewer_task_group

FOLDER = "build/sewer_taskflow"


@task
def choose_models(params):
    return params["models"]


@task.python_module(module="digits.generate")
def generate(seed, *, params):
    return {"out": Product(f"{FOLDER}/raw.npz"), "seed": seed, "copies": params["copies"]}


@task.python_module(module="digits.compare")
def compare(models, *, run_id):
    results = [f"{FOLDER}/{model}/result.json" for model in models]
    return {"results": results, "out": Product(f"{FOLDER}/{run_id}.json")}


with DAG(
    "sewer_taskflow",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    params={"copies": 1, "models": ["svc", "forest"]},
    default_args={"sewer_conn_id": "sewer_digits"},
    doc_md=__doc__,
    tags=["sewer", "example"],
):
    models = choose_models()
    trained = sewer_task_group.partial(
        "workflows/digits_model.py", arguments={"raw": f"{FOLDER}/raw.npz", "folder": FOLDER}
    ).expand(model=models)
    generate(seed=7) >> trained >> compare(models)
