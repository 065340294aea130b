"""Run tasks of several kinds alternately, each kind as a DAG in this process, and print milliseconds per task.

``tasks.py PYTHON COUNT TIMES``, in a folder that holds an empty module ``empty``, with an Airflow home of its own.
"""

import contextlib
import json
import logging
import os
import sys
import time


def main(python: str, count: str, times: str) -> None:
    from airflow.utils.db import initdb

    with contextlib.redirect_stdout(sys.stderr):
        initdb()
        dags = {kind: made(kind, python, int(count)) for kind in KINDS}
        put_into_bag(dags.values())
        logging.disable(logging.CRITICAL)
        ms = {kind: [] for kind in KINDS}
        for turn in range(-1, int(times)):  # the first round warms up
            for kind in KINDS if turn % 2 else reversed(KINDS):
                start = time.perf_counter()
                state = dags[kind].test().state
                took = (time.perf_counter() - start) * 1000 / int(count)
                if state != "success":
                    raise SystemExit(f"the DAG of {kind} ended as {state}")
                if turn >= 0:
                    ms[kind].append(took)
    print(json.dumps(ms))


def made(kind: str, python: str, count: int):
    from airflow.sdk import DAG

    with DAG(f"bench_{kind}", schedule=None) as dag:
        for number in range(count):
            KINDS[kind](f"task_{number}", python)
    return dag


def nothing(task_id: str, _: str) -> None:
    from airflow.providers.standard.operators.python import PythonOperator

    PythonOperator(task_id=task_id, python_callable=empty)


def bash(task_id: str, python: str) -> None:
    from airflow.providers.standard.operators.bash import BashOperator

    BashOperator(task_id=task_id, bash_command=f"{python} -m empty", cwd=os.getcwd())


def module(task_id: str, python: str) -> None:
    from airflow_provider_sewer.operators.module import PythonModuleOperator

    PythonModuleOperator(task_id=task_id, module="empty", python=python, workdir=os.getcwd())


def function(task_id: str, python: str) -> None:
    from airflow_provider_sewer.operators.module import PythonModuleOperator

    PythonModuleOperator(task_id=task_id, function="empty:nothing", python=python, workdir=os.getcwd())


def external(task_id: str, python: str) -> None:
    from airflow.providers.standard.operators.python import ExternalPythonOperator

    ExternalPythonOperator(task_id=task_id, python_callable=empty, python=python)


def external_without_airflow(task_id: str, python: str) -> None:
    from airflow.providers.standard.operators.python import ExternalPythonOperator

    ExternalPythonOperator(task_id=task_id, python_callable=empty, python=python, expect_airflow=False)


def empty() -> None:
    """Do nothing."""


KINDS = {
    "nothing": nothing,
    "bash": bash,
    "module": module,
    "function": function,
    "external": external,
    "external_without_airflow": external_without_airflow,
}


def put_into_bag(dags) -> None:
    """Register DAGs, as the DAG processor would: a run needs them in the database."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.session import create_session

    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
    bag = DagBag(dag_folder=os.devnull, bundle_path=None, bundle_name="dags-folder")
    for dag in dags:
        bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


if __name__ == "__main__":
    main(*sys.argv[1:])
