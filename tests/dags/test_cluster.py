"""The example DAG for Slurm, as it stands: on a real cluster, and where there is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"
TASKS = {f"digits.{name}" for name in ("generate", "add_noise", "train_svc", "train_forest", "compare")}


@pytest.fixture
def dag(airflow_home):
    """Load the DAG as the DAG processor does."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags-folder").dags["sewer_cluster"]


@pytest.fixture
def workdir(tmp_path, digits_python, monkeypatch):
    """Set the connection that the example uses; return its working directory."""
    extra = {"python": str(digits_python), "workdir": str(tmp_path), "run_dir": str(tmp_path / "runs")}
    monkeypatch.setenv("AIRFLOW_CONN_SEWER_DIGITS", json.dumps({"conn_type": "sewer", "extra": extra}))
    return tmp_path


def test_sewer_cluster_dag_trains_models_as_slurm_jobs(dag, run_dag, workdir, slurm, monkeypatch):
    """Two jobs, each with the resources of its task; the other tasks stay on the worker."""
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    result = run_dag(dag)
    assert result.states == dict.fromkeys(TASKS, "success")
    assert set(result.results["digits.compare"]["accuracies"]) == {"svc", "forest"}
    (svc,), (forest,) = slurm.jobs("digits.train_svc"), slurm.jobs("digits.train_forest")
    assert (svc.state, forest.state) == ("COMPLETED", "COMPLETED")
    assert "NumCPUs=2" in slurm.command("scontrol", "show", "job", forest.id)


def test_sewer_cluster_dag_runs_without_slurm(dag, run_dag, workdir, monkeypatch, tmp_path):
    """No command of Slurm's is on PATH; jobs, job directories and results are there all the same."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "bash"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    result = run_dag(dag)
    assert result.states == dict.fromkeys(TASKS, "success")
    assert set(result.results["digits.compare"]["accuracies"]) == {"svc", "forest"}
    clusters = [json.loads(path.read_text())["cluster"] for path in (workdir / "runs").glob("**/job.json")]
    assert clusters == ["local", "local"]
    assert os.path.getsize(workdir / "build/cluster/comparison.json")
