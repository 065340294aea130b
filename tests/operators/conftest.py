"""Shared fixtures of the operator tests: generated modules, and a DAG with a single operator."""

from __future__ import annotations

import json
import os
import sys
from textwrap import dedent

import pytest


@pytest.fixture
def module(tmp_path):
    """Write a module and return the operator arguments that run it on this interpreter."""

    def write(source: str, name: str = "job") -> dict:
        (tmp_path / f"{name}.py").write_text(dedent(source))
        return {"module": name, "python": sys.executable, "env": {"PYTHONPATH": str(tmp_path)}}

    return write


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    """Remove Slurm from PATH; keep the commands required by a job script and an interpreter."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "bash", "timeout", "python3"):
        (folder / name).symlink_to(sys.executable if name == "python3" else f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("SLURM_CONF", raising=False)


@pytest.fixture(params=[False, True], ids=["worker", "triggerer"])
def deferrable(request):
    """Let a test run twice: once the worker waits for the job, once the triggerer does."""
    return request.param


@pytest.fixture
def defaults(tmp_path):
    """Return arguments for all operators of a test: job directories below its folder, and short intervals."""
    return {"run_dir": str(tmp_path / "runs"), "poll_interval": 0.5, "max_poll_interval": 1.0}


@pytest.fixture
def run_job(run_dag, defaults):
    """Run one SlurmModuleOperator as the only task of a DAG."""
    # Airflow has a home only once pytest has been configured, which is later than this file is read.
    from airflow.sdk import DAG

    from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

    def run(dag_id: str = "one_job", **arguments):
        with DAG(dag_id, schedule=None) as dag:
            SlurmModuleOperator(task_id="job", **{**defaults, **arguments})
        return run_dag(dag)

    return run


@pytest.fixture
def connection(monkeypatch):
    """Write the connection ``sewer_test`` of these fields, and return the argument that names it."""

    def write(**extra) -> dict:
        monkeypatch.setenv("AIRFLOW_CONN_SEWER_TEST", json.dumps({"conn_type": "sewer", "extra": extra}))
        return {"sewer_conn_id": "sewer_test"}

    return write


@pytest.fixture
def xcom(airflow_home):
    """Return a function that reads the latest XCom of a key, of the only task of a DAG."""

    def read(key: str, dag_id: str = "one_job"):
        from airflow.models.xcom import XComModel
        from airflow.sdk.serde import deserialize
        from airflow.utils.session import create_session
        from sqlalchemy import select

        query = select(XComModel).where(XComModel.key == key, XComModel.dag_id == dag_id)
        with create_session() as session:
            rows = session.scalars(query.order_by(XComModel.timestamp.desc())).all()
            return deserialize(rows[0].value) if rows else None

    return read


@pytest.fixture
def run_directories(tmp_path):
    """Return a function that lists the job directories of all attempts, oldest first."""

    def find() -> list:
        return sorted((path.parent for path in (tmp_path / "runs").glob("**/attempt.json")), key=os.path.getmtime)

    return find


@pytest.fixture
def logged_text(capsys, caplog):
    """Return a function that returns all that has been logged since the last call, by tasks and by triggers."""
    caplog.set_level("INFO")

    def read() -> str:
        text = capsys.readouterr().out + "\n".join(record.getMessage() for record in caplog.records)
        caplog.clear()
        return text

    return read
