"""Secrets of Airflow tasks: masked in logs and results, stored nowhere, and named where others could read them."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections import OrderedDict
from types import MappingProxyType

import pytest
from airflow.sdk import DAG, TaskGroup, task, task_group
from airflow.serialization.serialized_objects import DagSerialization

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


@pytest.mark.parametrize("source", ["connection", "env", "url", "inherited", "parameter", "argument"])
def test_python_module_operator_masks_secrets_in_logs_and_database(
    source, module, run_dag, connection, logged_text, everything_kept, monkeypatch
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
        "argument": {"arguments": {"password": SECRET}, "args": ["x={{ task.arguments['password'] }}"]},
    }
    with DAG("shows_none", schedule=None) as dag:
        PythonModuleOperator(task_id="job", **{**job, **given[source]})
    result = run_dag(dag)
    assert "***" in result.results["job"]
    # A parameter is stored with the DAG; a warning names it while that is parsed. The code is the text of this file.
    kept = everything_kept(but=["dag_code", *(["serialized_dag"] if source in ("parameter", "argument") else [])])
    text = logged_text()
    assert "seen" in text
    for shown in (result.results["job"], text, kept):
        assert "sesame" not in shown


def test_partial_masks_secrets_of_mapped_operators(module, run_dag, logged_text, everything_kept):
    """Arguments common to all instances are also stored with the DAG."""
    job = module(PRINTS)
    job["env"] |= {"MY_PASS": SECRET}
    with DAG("mapped", schedule=None) as dag:
        PythonModuleOperator.partial(task_id="job", **job).expand(args=[["a"], ["b"]])
    assert run_dag(dag).results["job[1]"] == 'last ["***", null, "b"]'
    assert "sesame" not in logged_text() + everything_kept(but=["dag_code"])


class OwnDict(dict):
    """A mapping such as configuration libraries return."""


class OwnText(str):
    """Text such as configuration libraries return."""

    __slots__ = ()


MAPPINGS = {
    "ordered": OrderedDict,
    "subclass": OwnDict,
    "proxy": MappingProxyType,
    "text": lambda env: {name: OwnText(value) for name, value in env.items()},
}


@pytest.mark.parametrize("how", ["operator", "partial"])
@pytest.mark.parametrize("kind", MAPPINGS)
def test_env_of_any_mapping_type_is_masked(kind, how, module, run_dag, logged_text, everything_kept):
    """Airflow stores each kind of mapping, and each kind of text."""
    job = module(PRINTS)
    job["env"] = MAPPINGS[kind]({**job["env"], "MY_PASS": SECRET})
    with DAG("of_a_kind", schedule=None) as dag:
        if how == "operator":
            PythonModuleOperator(task_id="job", args=["a"], **job)
        else:
            PythonModuleOperator.partial(task_id="job", **job).expand(args=[["a"]])
    assert 'last ["***", null, "a"]' in run_dag(dag).results.values()
    assert "sesame" not in logged_text() + everything_kept(but=["dag_code"])


@pytest.mark.parametrize("how", ["expand", "expand_kwargs"])
@pytest.mark.parametrize("kind", [dict, OwnDict])
def test_expand_over_env_masks_secrets(kind, how, module, run_dag, logged_text, everything_kept):
    """Each instance gets its own, and none is in the stored DAG or in the rendered fields."""
    job = module(PRINTS)
    envs = [kind({**job.pop("env"), "MY_PASS": SECRET, "DB": "one"})]
    envs.append(kind({**envs[0], "MY_PASS": "x{{ 'y' }}-other-sesame", "DB": "{{ 'two' }}"}))
    with DAG("over_env", schedule=None) as dag:
        partial = PythonModuleOperator.partial(task_id="job", **job)
        partial.expand(env=envs) if how == "expand" else partial.expand_kwargs([{"env": env} for env in envs])
    assert envs[0]["MY_PASS"] == SECRET  # the user's own mapping stays as it is
    results = run_dag(dag).results
    assert [results["job[0]"], results["job[1]"]] == ['last ["***", "one"]', 'last ["***", "two"]']
    assert "sesame" not in logged_text() + everything_kept(but=["dag_code"])


def test_expanded_decorator_masks_secrets(module, run_dag, logged_text, everything_kept):
    """Those of its own arguments, and of arguments that are overridden."""
    job = module(PRINTS)

    @task.python_module(module=job["module"], python=job["python"], env={"MY_PASS": "first-sesame"})
    def call(n):
        return {"n": n}

    with DAG("decorated_over", schedule=None) as dag:
        call.override(task_id="other", env={**job["env"], "MY_PASS": SECRET}).expand(n=[1])
        call.expand(n=[])
    assert run_dag(dag).results["other[0]"] == 'last ["***", null, "--n", "1"]'
    assert "sesame" not in logged_text() + everything_kept(but=["dag_code"])


def test_template_beside_secret_is_rendered_and_masked(module, run_dag, everything_kept):
    """A password in a URL is a secret, also where its host is a template."""
    job = module("import os; print(os.environ['DB'].replace('open-sesame', 'right'))")
    job["env"] |= {"DB": "postgres://me:open-sesame@{{ dag.dag_id }}"}
    with DAG("half", schedule=None) as dag:
        PythonModuleOperator(task_id="job", **job)
    assert run_dag(dag).results["job"] == "postgres://me:right@half"
    assert "sesame" not in everything_kept(but=["dag_code"])


def test_python_module_task_masks_returned_secrets(module, run_dag, logged_text, everything_kept):
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
    assert "sesame" not in logged_text() + everything_kept(but=["dag_code"])


@pytest.mark.parametrize("value", ["{{ params.password }}", "x{{ params.password }}"])
def test_env_template_is_rendered_and_its_value_masked(value, module, run_dag, logged_text):
    """The template is shown; its rendered value is masked."""
    job = module(PRINTS)
    job["env"] |= {"MY_PASS": value}
    with DAG("rendered", schedule=None, params={"password": "given-sesame"}) as dag:
        PythonModuleOperator(task_id="job", **job)
    assert run_dag(dag).results["job"] == 'last ["***", null]'
    assert "given-sesame" not in "".join(line for line in logged_text().splitlines() if "seen" in line)


GIVEN = {
    "parameter 'password'": {"parameters_and_flags": {"password": "hunter2"}},
    "parameter 'url'": {"parameters_and_flags": {"url": "redis://:hunter2@host"}},
    "a value in args": {"args": ["fit", "--api-key", "hunter2"]},
    "line 1 of setup": {"slurm": {"setup": ["export TOKEN=hunter2"]}},
}


@pytest.mark.parametrize("how", ["operator", "partial", "expand_kwargs"])
@pytest.mark.parametrize("subject", GIVEN)
def test_exposed_secrets_warn_at_parse_time(subject, how):
    """The warning contains the DAG file and the fix; neither it nor Python's output of it shows a value."""
    make = SlurmModuleOperator if how == "operator" else SlurmModuleOperator.partial
    over = how == "expand_kwargs"
    with DAG("exposed", schedule=None) as dag, pytest.warns(SecretWarning) as raised:
        made = make(task_id="job", module="m", **({} if over else GIVEN[subject]))
        line = sys._getframe().f_lineno - 1
        if over:
            made.expand_kwargs([GIVEN[subject]])
            line = sys._getframe().f_lineno - 1
    (warning,) = [each for each in raised if each.category is SecretWarning]
    printed = warnings.formatwarning(warning.message, warning.category, warning.filename, warning.lineno)
    assert f"{dag.fileloc}:{line}: task 'job': {subject} looks like a secret" in printed
    assert re.search(r"Pass it in the environment, as env={'\w+': …} or in secret_env of the connection", printed)
    assert "hunter2" not in printed


def test_secret_in_env_does_not_warn(recwarn):
    """That is where it belongs."""
    with DAG("not_exposed", schedule=None):
        PythonModuleOperator(task_id="job", module="m", env={"TOKEN": "hunter2"}, args=["{{ conn.db.password }}"])
    assert not [warning for warning in recwarn if warning.category is SecretWarning]


def _in_default_args():
    with DAG("stored", schedule=None, default_args={"env": OwnDict(TOKEN="hunter2")}) as dag:
        PythonModuleOperator(task_id="job", module="m")
        PythonModuleOperator.partial(task_id="other", module="m").expand(args=[["a"]])
    return dag


def _over_a_group(**given):
    @task_group
    def group(env=None, token=None):
        PythonModuleOperator(task_id="job", module="m", env=env or {"TOKEN": token})

    with DAG("stored", schedule=None) as dag:
        group.expand(**given)
    return dag


STORED = {
    "default_args": (_in_default_args, "default_args: env 'TOKEN'"),
    "env": (lambda: _over_a_group(env=[{"TOKEN": "hunter2"}]), "task 'group.job': env 'TOKEN'"),
    "variable": (lambda: _over_a_group(token=["hunter2"]), "task 'group.job': env 'TOKEN'"),
}


@pytest.mark.parametrize("where", STORED)
def test_secrets_in_default_args_or_mapped_group_warn(where):
    """Airflow gives these to other operators as well, and stores them: once for a DAG, with file, line and the way."""
    make, subject = STORED[where]
    with pytest.warns(SecretWarning) as raised:
        dag = make()
    (warning,) = [str(each.message) for each in raised if each.category is SecretWarning]
    assert re.search(
        rf"^{re.escape(dag.fileloc)}:\d+: {re.escape(subject)} looks like a secret, and Airflow stores", warning
    )
    assert "secret_env of the connection, or as a template such as '{{ conn." in warning
    assert "hunter2" not in warning
    assert "hunter2" in json.dumps(DagSerialization.to_dict(dag))  # else the warning were wrong


def test_secret_in_task_group_default_args_does_not_warn(recwarn):
    """So they are a place for secrets."""
    with DAG("group", schedule=None) as dag, TaskGroup("g", default_args={"env": {"TOKEN": "hunter2"}}):
        PythonModuleOperator(task_id="job", module="m")
    assert not [warning for warning in recwarn if warning.category is SecretWarning]
    assert "hunter2" not in json.dumps(DagSerialization.to_dict(dag))


@pytest.mark.parametrize("how", ["call", "partial", "expand"])
def test_secrets_in_decorator_call_arguments_warn(how):
    """These are arguments as well."""

    @task.python_module(module="m")
    def call(token, n=0):
        return {"token": token, "n": n}

    with (
        DAG("called", schedule=None),
        pytest.warns(SecretWarning, match="argument 'token' looks like a secret") as raised,
    ):
        if how == "call":
            call(token="hunter2")
        elif how == "partial":
            call.partial(token="hunter2").expand(n=[1])
        else:
            call.expand(token=["hunter2"])
    assert "hunter2" not in "".join(str(each.message) for each in raised)
