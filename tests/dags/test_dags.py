"""Every example DAG, run as it stands by a real Airflow, its modules in an environment without Airflow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
EXAMPLES = {
    "data_prep", "data_prep_secondary", "sewer_cluster", "sewer_digits", "sewer_operators", "sewer_products",
    "sewer_taskflow",
}  # fmt: skip
#: Runs when sewer_products has produced a new file.
FOLLOWER = "sewer_products_report"


@pytest.fixture(scope="module")
def dags(airflow_home):
    """Load `dags/` as the DAG processor does; no file may fail."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags-folder")
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture
def workdir(tmp_path, digits_python, monkeypatch):
    """Set the connection that the examples use; return its working directory."""
    extra = {"python": str(digits_python), "workdir": str(tmp_path)}
    monkeypatch.setenv("AIRFLOW_CONN_SEWER_DIGITS", json.dumps({"conn_type": "sewer", "extra": extra}))
    return tmp_path


def test_dags_folder_contains_only_example_dags(dags):
    """Workflow files and the modules' project are not taken for DAG files."""
    assert set(dags) == {*EXAMPLES, FOLLOWER}


@pytest.mark.parametrize("dag_id", sorted(EXAMPLES - {"sewer_cluster"}))  # see test_cluster.py
def test_example_dag_succeeds(dags, dag_id, run_dag, workdir):
    """Each DAG runs to the end."""
    result = run_dag(dags[dag_id])
    assert set(result.states.values()) == {"success"}
    assert [*(workdir / "build").glob("**/noisy.npz"), *(workdir / "build").glob("**/noise-0.4.npz")] or (
        workdir / "build/products/comparison.json"
    ).exists()


def test_sewer_products_second_run_produces_only_removed_files(dags, run_dag, workdir):
    """And emits no event; the DAG of the plot is scheduled on products of the first."""
    first = run_dag(dags["sewer_products"])
    picture = run_dag(dags[FOLLOWER])
    made = {path: path.stat().st_mtime_ns for path in (workdir / "build/products").glob("[!.]*")}
    second = run_dag(dags["sewer_products"])

    assert (first.state, picture.state, second.state) == ("success", "success", "success")
    assert {path.name for path in made} == {"raw.npz", "svc.json", "forest.json", "comparison.json", "confusion.png"}
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert second.results["digits.compare"] == first.results["digits.compare"]


def test_airflow_and_sppe_give_the_same_accuracies(dags, run_dag, workdir, digits_python):
    """One file, two ways to run it: the accuracies agree to the last digit."""
    under_airflow = run_dag(dags["sewer_digits"]).results["digits.compare"]
    shell = workdir / "shell"
    shell.mkdir()
    command = [
        *(sys.executable, "-c", "from airflow_provider_sewer.cli import main; main()", "run"),
        *("-p", "dags/workflows/digits.py", "-i", str(digits_python), "--workdir", str(shell)),
        *("--log-dir", str(workdir / "logs")),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    results = [json.loads((place / "build/digits/comparison.json").read_text()) for place in (workdir, shell)]
    assert results[0] == results[1]
    assert results[0]["accuracies"] == under_airflow["accuracies"]
    assert (workdir / "build/digits/confusion.png").read_bytes().startswith(b"\x89PNG")


def test_make_demo_prints_accuracies_and_files(digits_python):
    """The first command of the tutorial, run again where everything is made already."""
    if Path(sys.executable) != ROOT / "build/venv/airflow/bin/python":
        pytest.skip("this runs under `make test`, which makes the environments that `make demo` uses")
    done = subprocess.run(["make", "demo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = re.findall(r"^  (/.*comparison\.json)$", done.stdout, re.MULTILINE)
    (png,) = re.findall(r"^  (/.*\.png)$", done.stdout, re.MULTILINE)
    assert os.path.getsize(png) > 10_000
    for accuracy in json.loads(Path(result).read_text())["accuracies"].values():
        assert f"{accuracy:.1%}" in done.stdout
