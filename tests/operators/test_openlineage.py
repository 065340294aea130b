"""OpenLineage hears of the dependencies and products of a task, by their absolute places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from textwrap import dedent

import pytest
from airflow.providers.openlineage.extractors.manager import ExtractorManager
from airflow.sdk import DAG, Asset
from airflow.utils.state import TaskInstanceState

from airflow_provider_sewer import Dependency, External, Product
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

COPY = """
import sys
text = open(sys.argv[2]).read()
if text == "bad": sys.exit(3)
open(sys.argv[4], "w").write(text)
"""

DAG_FILE = """
import sys
from airflow.sdk import DAG
from airflow_provider_sewer import Dependency, Product
from airflow_provider_sewer.operators.module import PythonModuleOperator

with DAG("lineage", schedule=None):
    files = {"in": Dependency("in.txt"), "out": Product("{{ dag.dag_id }}/out put.txt")}
    where = {"workdir": ".", "python": sys.executable}
    PythonModuleOperator(task_id="copy", module="copies", parameters_and_flags=files, **where)
"""


@pytest.mark.parametrize(
    ("text", "state", "outputs"), [("good", "COMPLETE", ["lineage/out put.txt"]), ("bad", "FAIL", [])]
)
def test_openlineage_events_contain_inputs_and_outputs(text, state, outputs, tmp_path, airflow_home):
    """The events come from a real run; a failed task has inputs and no outputs."""
    (tmp_path / "dag.py").write_text(DAG_FILE)
    (tmp_path / "copies.py").write_text(dedent(COPY))
    (tmp_path / "in.txt").write_text(text)
    transport = {"type": "file", "log_file_path": f"{tmp_path}/events", "append": True}
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "PYTHONPATH": str(tmp_path),
    }

    subprocess.run([sys.executable, "-m", "airflow", "dags", "test", "lineage"], env=env, check=text == "good")

    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    own = {event["eventType"]: event for event in events if event["job"]["name"] == "lineage.copy"}
    assert set(own) == {"START", state}
    files = {key: [(each["namespace"], each["name"]) for each in own[state][key]] for key in ("inputs", "outputs")}
    assert files == {
        "inputs": [("file", f"{tmp_path}/in.txt")],
        "outputs": [("file", f"{tmp_path}/{path}") for path in outputs],
    }
    assert [each["name"] for each in own["START"]["outputs"]] == [f"{tmp_path}/lineage/out put.txt"]


@pytest.fixture
def lineage():
    """Return a function that creates an operator and returns its OpenLineage facets at start."""

    def ask(operator=PythonModuleOperator, **arguments) -> tuple[list[str], list[str]]:
        with DAG("dag", schedule=None):
            task = operator(task_id="task", module="m", **arguments)
        run = type("Run", (), {"run_id": "run"})
        found = ExtractorManager().extract_metadata(run, task, TaskInstanceState.RUNNING, None)
        return [each.name for each in found.inputs], [each.name for each in found.outputs]

    return ask


def test_openlineage_paths_start_at_workdir_of_the_connection(lineage, connection):
    """Which only the worker reads."""
    files = {"in": [External("a"), Dependency("/b"), Dependency("x/../a")], "out": Product("c")}

    assert lineage(parameters_and_flags=files, **connection(workdir="/data")) == (["/data/a", "/b"], ["/data/c"])


def test_openlineage_includes_listed_products_and_dependencies(lineage):
    """They do not have to be parameters of the module."""
    assert lineage(products=["c"], dependencies=["a"], workdir="/data") == (["/data/a"], ["/data/c"])


def test_openlineage_paths_without_workdir_start_at_the_worker_cwd(lineage):
    """Where its module runs."""
    assert lineage(products=["c"]) == ([], [os.path.abspath("c")])


def test_openlineage_omits_relative_paths_of_slurm_jobs_without_workdir(lineage):
    """It runs in its job directory."""
    assert lineage(SlurmModuleOperator, products=["c", "/d"], dependencies=["a"]) == ([], ["/d"])


def test_openlineage_includes_given_inlets_and_outlets(lineage):
    """Each product occurs once, with any characters in its path."""
    assets = {"outlets": [Asset("file:///given")], "inlets": [Asset("file:///needed"), Asset("no place")]}

    assert lineage(products=["ü c"], workdir="/data", **assets) == (["/needed"], ["/data/ü c", "/given"])
