"""Secrets of Airflow tasks: masked in logs and results, stored nowhere, and named where others could read them."""

from __future__ import annotations

import json
import re
import warnings

import pytest
from airflow.sdk import DAG, task

from airflow_provider_sewer.core.errors import SecretWarning
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

SECRET = 'open"sesame/4711'
PRINTS = """
    import json, os, sys
    given = [os.environ.get("MY_PASS"), os.environ.get("DB"), *sys.argv[1:]]
    print("seen", given, file=sys.stderr)
    print("last", json.dumps(given))
"""


@pytest.mark.parametrize("source", ["connection", "env", "url", "inherited", "parameter"])
def test_python_module_operator_shows_no_secret_of_a_task(
    source, module, run_dag, connection, said, everything_kept, monkeypatch
):
    """Wherever it comes from, it is in no log, no XCom and no row of Airflow's database."""
    monkeypatch.setenv("MY_PASS", SECRET)
    job = module(PRINTS)
    given = {
        "connection": connection(secret_env=json.dumps({"DB": SECRET})),
        "env": {"env": {**job["env"], "MY_PASS": SECRET}},
        "url": {"env": {**job["env"], "DB": "postgres://me:open-sesame@host"}},
        "inherited": {"inherit_env": ["MY_PASS"]},
        "parameter": {"parameters_and_flags": {"password": SECRET}},
    }
    with DAG("shows_none", schedule=None) as dag:
        PythonModuleOperator(task_id="job", **{**job, **given[source]})
    result = run_dag(dag)
    assert "***" in result.results["job"]
    # A parameter is stored with the DAG; a warning names it while that is parsed. The code is the text of this file.
    kept = everything_kept(but=["dag_code", *(["serialized_dag"] if source == "parameter" else [])])
    text = said()
    assert "seen" in text
    for shown in (result.results["job"], text, kept):
        assert "sesame" not in shown


def test_partial_hides_secrets_of_mapped_operators(module, run_dag, said, everything_kept):
    """What all instances have is stored with the DAG as well."""
    job = module(PRINTS)
    job["env"] |= {"MY_PASS": SECRET}
    with DAG("mapped", schedule=None) as dag:
        PythonModuleOperator.partial(task_id="job", **job).expand(args=[["a"], ["b"]])
    assert run_dag(dag).results["job[1]"] == 'last ["***", null, "b"]'
    assert "sesame" not in said() + everything_kept(but=["dag_code"])


def test_python_module_task_hides_secrets_that_its_function_returns(module, run_dag, said, everything_kept):
    """Airflow stores the parameters once the function has been called."""
    job = module(PRINTS)
    job["env"] |= {"MY_PASS": SECRET}
    secret = "returned-sesame"

    @task.python_module(**job)
    def call():
        return {"password": secret}

    with DAG("decorated", schedule=None) as dag:
        call()
    assert run_dag(dag).results["call"] == 'last ["***", null, "--password", "***"]'
    assert "sesame" not in said() + everything_kept(but=["dag_code"])


@pytest.mark.parametrize("value", ["{{ params.password }}", "x{{ params.password }}"])
def test_env_template_is_rendered_and_its_value_masked(value, module, run_dag, said):
    """A template is no secret; what it gives is one."""
    job = module(PRINTS)
    job["env"] |= {"MY_PASS": value}
    with DAG("rendered", schedule=None, params={"password": "given-sesame"}) as dag:
        PythonModuleOperator(task_id="job", **job)
    assert run_dag(dag).results["job"] == 'last ["***", null]'
    assert "given-sesame" not in "".join(line for line in said().splitlines() if "seen" in line)


GIVEN = {
    "parameter 'password'": {"parameters_and_flags": {"password": "hunter2"}},
    "parameter 'url'": {"parameters_and_flags": {"url": "redis://:hunter2@host"}},
    "a value in args": {"args": ["fit", "--api-key", "hunter2"]},
    "line 1 of setup": {"slurm": {"setup": ["export TOKEN=hunter2"]}},
}


@pytest.mark.parametrize("how", ["operator", "partial"])
@pytest.mark.parametrize("what", GIVEN)
def test_operator_names_exposed_secrets_at_parse_time(what, how):
    """With the DAG file and the way to pass them; neither the message nor what Python prints of it shows a value."""
    make = SlurmModuleOperator if how == "operator" else SlurmModuleOperator.partial
    with DAG("exposed", schedule=None) as dag, pytest.warns(SecretWarning) as told:
        make(task_id="job", module="m", **GIVEN[what])
    (warning,) = [each for each in told if each.category is SecretWarning]
    printed = warnings.formatwarning(warning.message, warning.category, warning.filename, warning.lineno)
    assert f"{dag.fileloc}: task 'job': {what} looks like a secret" in printed
    assert re.search(r"Pass it in the environment, as env={'\w+': …} or in secret_env of the connection", printed)
    assert "hunter2" not in printed


def test_operator_names_no_secret_in_the_environment(recwarn):
    """That is where it belongs."""
    with DAG("not_exposed", schedule=None):
        PythonModuleOperator(task_id="job", module="m", env={"TOKEN": "hunter2"}, args=["{{ conn.db.password }}"])
    assert not [told for told in recwarn if told.category is SecretWarning]
