"""A folder that another user could have written fails a task at once: another try would find it as well."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer import Product
from airflow_provider_sewer.operators.module import PythonModuleOperator

RETRIES = {"retries": 2, "retry_delay": timedelta(0)}


def test_slurm_operator_with_foreign_run_dir_fails_without_retry(module, run_job, deferrable, tmp_path, capfd):
    """The log names the folder, and nothing is run."""
    (tmp_path / "runs" / "one_job").mkdir(parents=True)
    (tmp_path / "runs" / "one_job").chmod(0o777)

    result = run_job(
        **module(f"open({str(tmp_path / 'ran')!r}, 'w')"),
        run_dir=str(tmp_path / "runs"), cluster="local", deferrable=deferrable, **RETRIES,
    )  # fmt: skip

    assert result.state == "failed"
    assert not (tmp_path / "ran").exists()
    output = "".join(capfd.readouterr())
    assert f"run_dir: {tmp_path}/runs/one_job is writable by other users (mode 0777)" in output
    assert output.count("is writable by other users") == 1


@pytest.mark.parametrize("run_when", ["always", "stale"])
@pytest.mark.parametrize("on", ["worker", "local job"])
def test_operators_with_foreign_record_folder_fail_without_retry(
    module, run_job, run_dag, on, run_when, tmp_path, capfd
):
    """Beside a product, whether its record is read or written first."""
    (tmp_path / ".sewer").mkdir()
    (tmp_path / ".sewer").chmod(0o777)
    task = {
        **module(f"open({str(tmp_path / 'ran')!r}, 'w')"), **RETRIES, "run_when": run_when,
        "parameters_and_flags": {"out": Product(tmp_path / "x.txt")}, "workdir": str(tmp_path),
    }  # fmt: skip
    if on == "worker":
        with DAG("one_module", schedule=None) as dag:
            PythonModuleOperator(task_id="job", **task)
        result = run_dag(dag)
    else:
        result = run_job(**task, cluster="local")

    assert result.state == "failed"
    assert not (tmp_path / "ran").exists()
    output = "".join(capfd.readouterr())
    assert f"{tmp_path}/.sewer is writable by other users (mode 0777)" in output
    assert output.count("is writable by other users") == 1
