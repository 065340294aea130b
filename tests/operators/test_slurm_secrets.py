"""Environment and secrets of SlurmModuleOperator: visible to the job, and to no other process."""

from __future__ import annotations

import json

import pytest

#: No other test may store it: they share Airflow's database.
SECRET = "open-sesame-of-slurm-4711"


def test_secret_env_reaches_only_the_module(
    module,
    on_slurm,
    run_job,
    deferrable,
    connection,
    caplog,
    logged_text,
    everything_kept,
    run_directories,
    monkeypatch,
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
    text = logged_text()
    assert "bad key: ***" in text
    assert SECRET not in text
    assert SECRET not in everything_kept()
    assert bool(kept) == deferrable
    assert SECRET not in repr(kept)
    (directory,) = run_directories()
    files = {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    assert {name for name, content in files.items() if SECRET in content} == {"stdout.log", "stderr.log"}
    assert directory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("source", ["connection", "env", "url", "inherited", "parameter", "argument"])
def test_slurm_operator_masks_secrets_in_logs_and_database(
    source, module, no_slurm, run_job, connection, logged_text, everything_kept, monkeypatch, deferrable
):
    """Wherever it comes from, it is in no log, no XCom, no error, no trigger and no row of Airflow's database."""
    from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

    kept = []
    serialize = SlurmJobTrigger.serialize
    monkeypatch.setattr(SlurmJobTrigger, "serialize", lambda self: kept.append(serialize(self)) or kept[-1])
    job = module("""
        import json, os, sys
        given = [os.environ.get("MY_PASS"), os.environ.get("DB"), *sys.argv[1:]]
        print("seen", json.dumps(given), file=sys.stderr)
        print("last", given)
    """)
    monkeypatch.setenv("MY_PASS", SECRET)
    given = {
        "connection": connection(secret_env=json.dumps({"DB": SECRET})),
        "env": {"env": {**job["env"], "MY_PASS": SECRET}},
        "url": {"env": {**job["env"], "DB": f"postgres://me:{SECRET}@host"}},
        "inherited": {"inherit_env": ["MY_PASS"]},
        "parameter": {"parameters_and_flags": {"password": SECRET}},
        "argument": {"arguments": {"password": SECRET}, "args": ["x={{ task.arguments['password'] }}"]},
    }
    result = run_job("shows_none", deferrable=deferrable, **{**job, **given[source]})
    assert result.states["job"] == "success"
    assert "***" in result.results["job"]
    assert SECRET not in result.results["job"]
    text = logged_text()
    assert "seen" in text
    assert SECRET not in text
    assert bool(kept) == deferrable
    assert SECRET not in repr(kept)
    # A parameter is stored with the DAG; a warning names it while that is parsed.
    assert SECRET not in everything_kept(but=["serialized_dag"] if source in ("parameter", "argument") else [])


def test_slurm_operator_masks_the_tail_of_stderr_in_its_event(
    module, no_slurm, run_job, logged_text, everything_kept, deferrable
):
    """Airflow keeps the event of a trigger in its database, in clear."""
    job = module("import os, sys; sys.exit('bad password: ' + repr(os.environ['MY_PASSWORD']))")
    job["env"] |= {"MY_PASSWORD": 'pa"ss\\wörd'}
    assert run_job("masks_the_tail", deferrable=deferrable, **job).states["job"] == "failed"
    text = logged_text()
    assert "bad password: '***'" in text
    assert "wörd" not in text
    assert "wörd" not in everything_kept()


def test_secret_arguments_are_removed_from_the_job_directory(module, no_slurm, run_job, run_directories, deferrable):
    """Neither in the job script nor, once the attempt has ended, in its recorded arguments."""
    job = module("print('done')")
    run_job("leaves_none", parameters_and_flags={"password": SECRET, "n": 3}, deferrable=deferrable, **job)
    (directory,) = run_directories()
    texts = {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    assert [name for name, text in texts.items() if SECRET in text] == []
    assert "--n" in texts["job.sh"]
    assert '"n": 3' in texts["task.json"]
    assert "trigger.key" not in texts


def test_secret_arguments_of_a_function_are_masked_in_its_file(module, no_slurm, run_job, run_directories, tmp_path):
    """The file that the function was called with stays, masked."""
    given = module("def work(password, n): return len(password) + n", name="functions")
    del given["module"]
    result = run_job("of_a_function", function="functions:work", op_kwargs={"password": SECRET, "n": 1}, **given)
    assert result.results["job"] == len(SECRET) + 1
    (directory,) = run_directories()
    assert json.loads((directory / "arguments.json").read_text()) == {"password": "***", "n": 1}
    assert SECRET not in (directory / "task.json").read_text()


def test_job_environment_excludes_variables_of_the_worker(module, on_slurm, run_job, deferrable, monkeypatch):
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


def test_inherit_env_passes_named_variables(module, on_slurm, run_job, monkeypatch):
    """A named variable passes, even one of Airflow's."""
    monkeypatch.setenv("AIRFLOW_CTX_OF_MINE", "wanted")
    job = module("import os; print(os.environ.get('AIRFLOW_CTX_OF_MINE'))")
    assert run_job(inherit_env=["AIRFLOW_CTX_OF_MINE"], **job).results["job"] == "wanted"


def test_inherit_env_true_passes_variables_a_job_script_can_set(module, on_slurm, run_job, monkeypatch):
    """True passes the worker's environment; a shell function exported there is no reason to fail."""
    monkeypatch.setenv("OF_THE_WORKER", "wanted")
    monkeypatch.setenv("BASH_FUNC_module%%", "() { :; }")
    monkeypatch.setenv("AIRFLOW_CONN_PRODUCTION", "leak")
    job = module("import os; print(os.environ['OF_THE_WORKER'], os.environ.get('AIRFLOW_CONN_PRODUCTION'))")
    assert run_job(inherit_env=True, **job).results["job"] == "wanted None"


def test_connection_in_database_is_read_by_worker_and_trigger(module, no_slurm, run_job, deferrable, logged_text):
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
    assert "the token is ***" in logged_text()
