"""Tasks of one DAG run that share a temporary product."""

from __future__ import annotations

import sys

import pytest
from airflow.sdk import DAG

from airflow_provider_sewer import Dependency, Product
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.paths import RemoveProductsOperator
from airflow_provider_sewer.task_group import sewer_task_group

STEPS = """
def make(out):
    open(out, "w").write("made")

def use(source):
    open(source).read()
"""
FLOW = """
from airflow_provider_sewer import Dependency, Product, Task

make = Task("make", function="steps:make", kwargs={"out": Product("raw.txt", temporary=True)})
use = Task("use", function="steps:use", kwargs={"source": Dependency("raw.txt")})
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "flow.py").write_text(FLOW)
    return tmp_path


def test_remove_leaves_temporary_product_that_other_group_uses(run_dag, project):
    """The last of the groups removes it."""
    with DAG("groups", schedule=None) as dag:
        one, two = (
            sewer_task_group(project / "flow.py", group_id=each, python=sys.executable, workdir=project)
            for each in ("one", "two")
        )
        one["make"] >> two["make"] >> one["use"]
        dag.get_task("one.remove_raw_txt") >> two["use"]

    assert set(run_dag(dag).states.values()) == {"success"}
    assert not (project / "raw.txt").exists()
    assert not [*project.glob(".sewer/*.runs")]


def test_remove_products_operator_removes_product_of_any_task_by_default(run_dag, project):
    """In a hand-written DAG, made_by is optional."""
    common = {"python": sys.executable, "workdir": project}
    with DAG("by_hand", schedule=None) as dag:
        make = PythonModuleOperator(
            task_id="make",
            function="steps:make",
            op_kwargs={"out": Product("raw.txt", temporary=True)},
            **common,
        )
        use = PythonModuleOperator(
            task_id="use", function="steps:use", op_kwargs={"source": Dependency("raw.txt")}, **common
        )
        make >> use >> RemoveProductsOperator(task_id="remove", products=["raw.txt"], workdir=str(project))

    assert set(run_dag(dag).states.values()) == {"success"}
    assert not (project / "raw.txt").exists()
