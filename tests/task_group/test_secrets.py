"""Secrets in workflow files that become TaskGroups."""

from __future__ import annotations

import os
import traceback
import warnings

import pytest
from airflow.sdk import DAG, task

from airflow_provider_sewer.core.errors import SecretWarning, WorkflowFileError
from airflow_provider_sewer.task_group import sewer_task_group

SOURCE = """
import os
import traceback
a = Task("a", function="steps:show", env={"MY_PASS": os.environ["OF_THE_WORKER"]})
b = Task("b", function="steps:show", env={"DB": f"x://me:{os.environ['OF_THE_WORKER']}@host"})
c = Task("c", function="steps:show", env={"MY_PASS": os.environ["OF_THE_WORKER"]}).map(n=[1, 2])
"""
STEPS = """
import os
import traceback

def show(n=0):
    print("seen", os.environ.get("MY_PASS"), {"db": os.environ.get("DB")}, os.environ.get("A_TOKEN"))
    return n
"""


@pytest.fixture
def shown_text(capsys, caplog):
    """Return a function that returns all that has been logged."""
    caplog.set_level("INFO")
    return lambda: capsys.readouterr().out + "\n".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("where", ["local", "slurm"])
def test_sewer_task_group_stores_and_shows_no_secret(
    expand, run_dag, shown_text, everything_kept, monkeypatch, tmp_path, where
):
    """Neither of its tasks, mapped or not, nor of its own; also where its tasks are jobs."""
    (tmp_path / "steps.py").write_text(STEPS)
    monkeypatch.setenv("OF_THE_WORKER", "worker-sesame")
    on_slurm = {"run_on": "slurm", "cluster": "local", "run_dir": tmp_path / "runs"} if where == "slurm" else {}
    env = {"A_TOKEN": "group-sesame", "PYTHONPATH": str(tmp_path)}
    group = expand(SOURCE, env=env, **on_slurm)
    assert run_dag(group.dag).state == "success"
    text = shown_text()
    assert text.count("seen *** {'db': None} ***") == 3
    assert text.count("seen None {'db': 'x://me:***@host'} ***") == 1
    kept = everything_kept()
    for shown in (text, kept):
        assert "worker-sesame" not in shown
        assert "group-sesame" not in shown


def test_sewer_task_group_warns_once_of_exposed_secret_with_line(expand, tmp_path):
    """Secrets of equal tasks, of mapped tasks, and of the DAG file's settings for all."""
    source = """
a = Task("a", "m", {"password": "hunter2"})
b = Task("b", "m", {"password": "hunter3"})
c = Task("c", "m", {"n": 0}).map(token=["hunter4", "hunter5"])
d = Task("d", "m", run_on="slurm", slurm={"setup": ["export TOKEN=hunter6"]})
"""
    with pytest.warns(SecretWarning) as reported:
        expand(source, slurm={"teardown": ["curl -u me --password hunter7"]})
    shown = [str(warning.message).partition(" looks like a secret")[0] for warning in reported]
    flow = tmp_path / "flow.py"
    assert [line for line in shown if str(flow) in line] == [
        f"{flow}:3: task 'a': parameter 'password'",
        f"{flow}:4: task 'b': parameter 'password'",
        f"{flow}:5: task 'c': parameter 'token'",
        f"{flow}:6: task 'd': line 1 of setup",
    ]
    (of_group,) = [line for line in shown if str(flow) not in line]
    assert of_group.startswith(os.path.join(os.path.dirname(__file__), "conftest.py:"))
    assert of_group.endswith(": line 1 of teardown")
    texts = [warnings.formatwarning(each.message, each.category, each.filename, each.lineno) for each in reported]
    assert "hunter" not in "".join(texts)


def test_expand_warns_of_secrets_in_arguments(file, tmp_path):
    """Airflow stores the values that a group is mapped over."""
    source = """
@workflow
def flow(token, n):
    Task("a", "m", {"n": n}, env={"A_TOKEN": token}).run()
"""
    with DAG("mapped", schedule=None), pytest.warns(SecretWarning) as reported:
        sewer_task_group.partial(file(source), workflow="flow").expand(token=["hunter2", "hunter3"], n=[1])
    (warning,) = [str(each.message) for each in reported if each.category is SecretWarning]
    assert warning.startswith(f"{__file__}:")
    assert ": expand: argument 'token' looks like a secret" in warning
    assert "hunter" not in warning


ARGUMENTS = """
@workflow
def flow(token, pin_token, login, plain):
    a = Task("a", function="steps:give", kwargs={"t": [token, {"n": pin_token}], "who": "x" + login["password"]})
    b = Task("b", "prints", {"n": plain, "who": token}, args=[pin_token], env={"HERE": token}, doc="as " + token)
    c = Task("c", function="steps:give").map(t=[token, "other"])
    d = Task("d", "prints", {"n": 1})
    (a >> b >> c >> d).run()
"""
PRINTS = """
import os, sys

print("seen", *sys.argv[1:], os.environ.get("HERE"), "hidden-poppy"[:6] + "-poppy")
"""
GIVE = """
def give(**kwargs):
    print("seen", kwargs)
    return kwargs["t"] == "other" or "hidden-poppy" in str(kwargs)
"""


@pytest.mark.parametrize("where", ["local", "slurm", "deferred"])
def test_sewer_task_group_masks_secret_arguments_under_other_names(
    expand, run_dag, shown_text, everything_kept, tmp_path, where
):
    """They are in no log and in no row of Airflow's database, and the tasks get them."""
    (tmp_path / "steps.py").write_text(GIVE)
    (tmp_path / "prints.py").write_text(PRINTS)
    on_slurm = {"run_on": "slurm", "cluster": "local", "run_dir": tmp_path / "runs", "deferrable": where == "deferred"}
    arguments = {
        "token": "hidden-poppy",
        "pin_token": 58225822,
        "login": {"password": "own-poppy"},
        "plain": "{{ ds }}",
    }
    with pytest.warns(SecretWarning) as raised:
        group = expand(
            ARGUMENTS,
            arguments=arguments,
            env={"PYTHONPATH": str(tmp_path)},
            **(on_slurm if where != "local" else {"run_on": "local"}),
        )
    result = run_dag(group.dag)
    assert result.state == "success"
    assert [result.results[f"g.{task}"] for task in ("a", "c[0]", "c[1]")] == [True, True, True]
    text = shown_text()
    assert text.count("seen") >= 5
    warned = "".join(str(each.message) for each in raised)
    for shown in (text, warned, everything_kept(but=["dag_code"]), group.dag.get_task("g.b").doc_md):
        for value in ("hidden-poppy", "58225822", "own-poppy"):
            assert value not in shown


REFERENCES = """
@workflow
def flow(token, config):
    a = Task("a", "prints", {"n": token, "c": config["password"], "d": f"x{token}y"})
    b = Task("b", function="steps:give", kwargs={"n": [token]})
    (a >> b).run()
"""


@task
def give_text():
    return "given-sesame"


@task
def give_list():
    return ["given-sesame"]


@task
def give_object():
    return {"password": "own-sesame"}


@pytest.mark.parametrize("is_native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("how", ["xcom", "template", "expand"])
def test_secret_arguments_of_run_time_are_masked_under_other_names(
    file, where, run_dag, shown_text, tmp_path, how, is_native
):
    """They come from XComs, templates or the values of a mapped group."""
    (tmp_path / "steps.py").write_text("def give(**kwargs):\n    print('seen', kwargs)\n")
    (tmp_path / "prints.py").write_text("import sys; print('seen', *sys.argv[1:])")
    path = file(REFERENCES)
    params = {"of_dag": "given-sesame"}
    with DAG("references", schedule=None, params=params, render_template_as_native_obj=is_native) as dag:
        config = give_object()
        if how == "expand":
            sewer_task_group.partial(path, arguments={"config": config}, **where).expand(token=give_list())
        else:
            token = give_text() if how == "xcom" else "{{ params.of_dag }}"
            sewer_task_group(path, arguments={"token": token, "config": config}, **where)
    assert run_dag(dag).state == "success"
    lines = [line for line in shown_text().splitlines() if "seen" in line or "Running" in line]
    assert len(lines) >= 4
    assert "sesame" not in "".join(lines)


def test_sewer_task_group_errors_mask_secret_arguments(expand):
    """Airflow shows them as import errors, with their causes."""
    source = "@workflow\ndef flow(token):\n    raise ValueError('bad ' + token)\n"
    with pytest.raises(WorkflowFileError, match=r"ValueError: bad \*\*\*") as raised:
        expand(source, arguments={"token": "given-sesame"})
    assert "bad given-sesame" not in "".join(traceback.format_exception(raised.value))
