"""Runs without a logical date."""

from __future__ import annotations

import sys

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer import Product
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.paths import ExternalPathSensor, RemoveProductsOperator
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.testing import _register


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{{ ds }}.txt", "'ds' is undefined: this run has no logical date"),
        ("{{ ts_nodash }}.txt", "'ts_nodash' is undefined: this run has no logical date"),
        ("{{ no_such }}.txt", "'no_such' is undefined"),
        ("{{ run_id }}.txt", None),
    ],
)
@pytest.mark.parametrize("kind", ["local", "job", "mapped"])
def test_template_without_logical_date_fails_with_the_reason(tmp_path, capsys, kind, path, reason):
    """At once, as another try would not help; a template that does without the date works."""
    (tmp_path / "job.py").write_text("import sys; open(sys.argv[1], 'w').write('x')")
    fields = {"task_id": "job", "module": "job", "python": sys.executable, "workdir": str(tmp_path)}
    with DAG("undated", schedule=None) as dag:
        if kind == "mapped":
            PythonModuleOperator.partial(**fields).expand(args=[[Product(path)]])
        elif kind == "local":
            PythonModuleOperator(**fields, args=[Product(path)])
        else:
            job = {"cluster": "local", "run_dir": str(tmp_path / "runs")}
            SlurmModuleOperator(**fields, args=[Product(path)], **job)
    _register(dag)

    run = dag.test(logical_date=None)

    assert run.state == ("success" if reason is None else "failed")
    assert reason is None or reason in capsys.readouterr().out


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize("operator", [ExternalPathSensor, RemoveProductsOperator])
def test_path_operator_template_without_logical_date_fails_with_the_reason(tmp_path, capsys, operator):
    """As the operators that run a module."""
    path = str(tmp_path / "{{ ds }}.txt")
    with DAG("undated_path", schedule=None) as dag:
        operator(task_id="path", **({"path": path} if operator is ExternalPathSensor else {"products": [path]}))
    _register(dag)

    assert dag.test(logical_date=None).state == "failed"
    assert "'ds' is undefined: this run has no logical date" in capsys.readouterr().out
