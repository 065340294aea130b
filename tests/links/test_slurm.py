"""SlurmJobLink, as Airflow queries it on the worker."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer.links.slurm import SlurmJobLink
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator


@pytest.fixture
def xcoms(airflow_home):
    """Return a function that returns the XComs of all links of a DAG."""

    def read(dag_id: str) -> list:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        of_the_link = (XComModel.key == SlurmJobLink().xcom_key, XComModel.dag_id == dag_id)
        with create_session() as session:
            return session.scalars(select(XComModel.value).where(*of_the_link)).all()

    return read


def test_operator_extra_links_contain_slurm_job_link():
    """Airflow shows a button for it, and keeps the address under a key of its own."""
    operator = SlurmModuleOperator(task_id="job", module="job")
    assert [(link.name, link.xcom_key) for link in operator.operator_extra_links] == [("Slurm job", "slurm_job_link")]


def test_get_link_without_job_returns_empty_string():
    """Before there is a job, and without a `job_url`, there is nothing to lead to."""
    operator = SlurmModuleOperator(task_id="job", module="job")
    assert SlurmJobLink().get_link(operator, ti_key=None) == ""


def test_get_link_of_local_job_returns_empty_string(run_dag, monkeypatch, tmp_path, xcoms):
    """The site's pages know Slurm's jobs only."""
    extra = {"job_url": "https://slurm.example/{job_id}", "run_dir": str(tmp_path), "cluster": "local"}
    monkeypatch.setenv("AIRFLOW_CONN_SEWER_TEST", json.dumps({"conn_type": "sewer", "extra": extra}))
    with DAG("link", schedule=None) as dag:
        SlurmModuleOperator(task_id="job", module="this", sewer_conn_id="sewer_test")
    assert run_dag(dag).state == "success"
    assert [json.loads(value) if isinstance(value, str) and value else value for value in xcoms("link")] == [""]
