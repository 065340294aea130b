"""A workflow file is parsed to the same DAG each time, and to another one once it has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from airflow.dag_processing.bundles.base import BaseDagBundle
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session

from airflow_provider_sewer.operators.operator_cloner import OperatorCloner
from airflow_provider_sewer.task_group import sewer_task_group

FLOW = """
import datetime

from airflow_provider_sewer import Dependency, External, Ignored, Product, Task, workflow

first = [Task(f"first {n}", "job", {"n": n, "out": Product(f"{n}.txt", temporary=n % 2 == 0)}) for n in range(12)]
second = [Task(f"second {n}", "job", {"in": [Dependency(f"{k}.txt") for k in range(12)], "threads": Ignored(n)},
               env={"B": "2", "A": "{{ ds }}"}, inherit_env=["X", "Y"], group="deep.er", tags=["x", "y"],
               operator_kwargs={"retries": 2, "retry_delay": datetime.timedelta(minutes=n % 2)}) for n in range(10)]
counts = Task("counts", function="steps:count", kwargs={"of": {"b": 1, "a": 2}})
each = Task("each", "job", {"k": 1}).map(n=counts.result)
known = Task("known", "job").map_product(n=[1, 2], m=["a", "b"])
job = Task("job", "job", {"in": External("given", timeout=60)}, run_on="slurm", slurm={"mem_gb": 1, "gpus_per_node": 1},
           depends_on=[*second, each, known], doc="What it is for.")
"""

DIGEST = """
import json, sys
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow_provider_sewer.task_group import sewer_task_group

with DAG("dag", schedule=None, tags={"one", "two", "three"}) as dag:
    overrides = {"tag:x": {"queue": "q"}}
    sewer_task_group(sys.argv[1], group_id="g", workdir="/w", operator_kwargs={"pool": "p"}, overrides=overrides)
data = DagSerialization.to_dict(dag)
print(json.dumps(data["dag"]["tasks"], sort_keys=True))
print(SerializedDagModel.hash(data))
"""


@pytest.fixture
def flow(tmp_path):
    """Write a workflow file with some of everything."""
    path = tmp_path / "flow.py"
    path.write_text(FLOW)
    return path


def test_serialized_dag_is_the_same_with_other_hash_seed(flow):
    """Python's order of sets is another one in each process."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST, flow], env={**env, "PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True
        )
        for seed in ("1", "2")
    ]
    one, other = [process.communicate()[0] for process in processes]
    assert one == other
    assert one.count("task_id") > 30


def test_operator_cloner_serializes_as_constructor_does(flow, monkeypatch):
    """Cloned operators equal operators created by the constructor."""

    def serialized():
        with DAG("dag", schedule=None) as dag:
            sewer_task_group(flow, group_id="g", overrides={"first 3": {"outlets": []}})
        return DagSerialization.to_dict(dag)

    fast = serialized()
    monkeypatch.setattr(OperatorCloner, "clone", lambda _, kind, own, shared: kind(**own, **shared))
    assert serialized() == fast


class Commits(BaseDagBundle):
    """A bundle of the files of a git repository, each version being a commit of it."""

    supports_versioning = True

    def __init__(self, *, repository: Path, **kwargs) -> None:
        super().__init__(**kwargs)
        self.repository = repository

    @property
    def path(self) -> Path:
        """Return the folder of one version, or of the working tree."""
        return self.repository.parent / self.version if self.version else self.repository

    def initialize(self) -> None:
        """Check a version out."""
        if self.version:
            git(self.repository, "worktree", "add", "--detach", str(self.path), self.version)
        super().initialize()

    def get_current_version(self) -> str:
        """Return the commit of the working tree."""
        return git(self.repository, "rev-parse", "HEAD")

    def refresh(self) -> None:
        """There is nothing to fetch."""


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Return a git repository with a DAG file and the workflow file that it expands."""
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "dag.py").write_text(
        dedent("""
            from airflow.sdk import DAG
            from airflow_provider_sewer.task_group import sewer_task_group
            with DAG("versioned", schedule=None):
                sewer_task_group("flow.py", group_id="g")
        """)
    )
    git(folder, "init", "--quiet")
    return folder


def commit_flow(repository: Path, module: str) -> str:
    text = f"from airflow_provider_sewer import Task\nTask('only', '{module}', python='bin/python')\n"
    (repository / "flow.py").write_text(text)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--allow-empty", "-m", module)
    return git(repository, "rev-parse", "HEAD")


def parsed(bundle: BaseDagBundle) -> DAG:
    bundle.initialize()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    assert not bag.import_errors
    if bundle.version is None:  # the DAG processor
        sync_bag_to_db(bag, bundle.name, bundle.get_current_version())
    return bag.dags["versioned"]


def test_dag_version_changes_with_workflow_file(repository, airflow_home, monkeypatch):
    """A change of it alone is a new version; a run of an earlier one reads the file that belongs to it."""
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
    with create_session() as session:
        session.merge(DagBundleModel(name="commits"))
    commits = []
    for module in ("steps.one", "steps.one", "steps.two"):
        commits.append(commit_flow(repository, module))
        dag = parsed(Commits(name="commits", repository=repository))
        assert dag.get_task("g.only").module == module
        dag.test()  # a version that was never run is replaced by the next one
    with create_session() as session:
        versions = session.query(DagVersion).filter_by(dag_id="versioned").order_by(DagVersion.version_number).all()
        known = [(version.version_number, version.bundle_version) for version in versions]
    assert [number for number, _ in known] == [1, 2]
    assert known[0][1] in commits[:2]
    assert known[1][1] == commits[2]

    earlier = parsed(Commits(name="commits", repository=repository, version=commits[0]))
    assert earlier.get_task("g.only").module == "steps.one"
    assert earlier.get_task("g.only").python == "bin/python"  # no path that names the version
