"""What a Slurm job gets to see, and what nobody else does: environment and secrets of SlurmModuleOperator."""

from __future__ import annotations

import json

import pytest

SECRET = "open-sesame-4711"


@pytest.fixture
def everything_kept(airflow_home):
    """Return a function that returns all rows of Airflow's database as text, XComs, events and rendered fields too."""

    def read() -> str:
        from airflow.utils.session import create_session
        from sqlalchemy import text

        with create_session() as session:
            tables = session.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
            rows = [session.execute(text(f'SELECT * FROM "{table}"')).all() for table in tables]
        return repr(rows)

    return read


def test_a_secret_reaches_the_module_and_nothing_else(
    module, on_slurm, run_job, deferrable, connection, caplog, said, everything_kept, run_directories, monkeypatch
):
    """It is masked in the log, also where a long line is cut, and is in no file, trigger, event, XCom or argv."""
    from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

    kept = []
    serialize = SlurmJobTrigger.serialize
    monkeypatch.setattr(SlurmJobTrigger, "serialize", lambda self: kept.append(serialize(self)) or kept[-1])
    key = connection(secret_env=json.dumps({"KEY": SECRET}))
    job = module("""
        import os, sys
        print("x" * (64 * 1024 - 6) + os.environ["KEY"] + "!")
        sys.exit("bad key: " + os.environ["KEY"])
    """)
    assert run_job(deferrable=deferrable, **key, **job).states["job"] == "failed"
    logged = "".join(r.getMessage() for r in caplog.records if r.name == "airflow.task.module.stdout")
    assert logged == "x" * (64 * 1024 - 6) + "***!"
    text = said()
    assert "bad key: ***" in text
    assert SECRET not in text
    assert SECRET not in everything_kept()
    assert bool(kept) == deferrable
    assert SECRET not in repr(kept)
    (directory,) = run_directories()
    files = {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    assert {name for name, content in files.items() if SECRET in content} == {"stdout.log", "stderr.log"}
    assert directory.stat().st_mode & 0o077 == 0


def test_the_job_sees_a_closed_environment(module, on_slurm, run_job, deferrable, monkeypatch):
    """Nothing of Airflow, of the worker's own Slurm job or of the worker's secrets gets to the node."""
    for name in (
        "SLURM_JOB_COMMENT",
        "AWS_SECRET_ACCESS_KEY",
        "AIRFLOW_CONN_PRODUCTION",
        "PYTHONSTARTUP",
        "SBATCH_QOS",
    ):
        monkeypatch.setenv(name, "leak")
    job = module("import json, os; print(json.dumps(dict(os.environ)))")
    seen = run_job(deferrable=deferrable, **job).results["job"]
    assert "leak" not in json.loads(seen).values()
    assert "AIRFLOW" not in seen


def test_inherit_env_widens_it_by_name(module, on_slurm, run_job, monkeypatch):
    """A named variable passes, even one of Airflow's."""
    monkeypatch.setenv("AIRFLOW_CTX_OF_MINE", "wanted")
    job = module("import os; print(os.environ.get('AIRFLOW_CTX_OF_MINE'))")
    assert run_job(inherit_env=["AIRFLOW_CTX_OF_MINE"], **job).results["job"] == "wanted"


def test_all_that_is_inherited_is_what_a_job_script_can_set(module, on_slurm, run_job, monkeypatch):
    """True passes the worker's environment; a shell function exported there is no reason to fail."""
    monkeypatch.setenv("OF_THE_WORKER", "wanted")
    monkeypatch.setenv("BASH_FUNC_module%%", "() { :; }")
    monkeypatch.setenv("AIRFLOW_CONN_PRODUCTION", "leak")
    job = module("import os; print(os.environ['OF_THE_WORKER'], os.environ.get('AIRFLOW_CONN_PRODUCTION'))")
    assert run_job(inherit_env=True, **job).results["job"] == "wanted None"


def test_a_connection_in_the_database_serves_a_task_however_it_waits(module, no_slurm, run_job, deferrable, said):
    """Under `airflow dags test` as well, where Airflow does not let triggers ask for it in the usual way."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    stored = Connection("sewer_stored", "sewer", extra={"secret_env": json.dumps({"TOKEN": "opensesame-of-the-store"})})
    job = module("import os; print('the token is', os.environ['TOKEN'])")
    with create_session() as session:
        session.add(stored)
    try:
        run_job(sewer_conn_id="sewer_stored", deferrable=deferrable, **job)
    finally:
        with create_session() as session:
            session.delete(stored)
    assert "the token is ***" in said()
