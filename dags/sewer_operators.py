"""PythonModuleOperator in a DAG written by hand: a parameter from an XCom, and a task mapped over a list."""

import pendulum
from airflow.sdk import DAG, task

from airflow_provider_sewer.operators.module import PythonModuleOperator


@task
def choose_seed():
    return 7


with DAG(
    "sewer_operators",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    default_args={"sewer_conn_id": "sewer_digits"},
    doc_md=__doc__,
    tags=["sewer", "example"],
):
    generate = PythonModuleOperator(
        task_id="generate",
        module="digits.generate",
        parameters_and_flags={"out": "build/sewer_operators/{{ run_id }}/raw.npz", "seed": choose_seed(), "copies": 1},
    )
    noise = PythonModuleOperator.partial(task_id="noise", module="digits.noise").expand(
        parameters_and_flags=[
            {
                "in": "build/sewer_operators/{{ run_id }}/raw.npz",
                "out": f"build/sewer_operators/{{{{ run_id }}}}/noise-{level}.npz",
                "level": level,
            }
            for level in (0.1, 0.2, 0.4)
        ]
    )
    generate >> noise
