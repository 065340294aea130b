"""A product is an asset that is known by its absolute place, however its path is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from airflow.sdk import DAG, Asset, BaseOperator

from airflow_provider_sewer import Product, SewerError
from airflow_provider_sewer.operators.assets import PathBase, product_asset
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

HERE = os.path.dirname(os.path.abspath(__file__))


def outlets(operator=PythonModuleOperator, *, dag_args=None, **arguments) -> list[Asset]:
    """Return the outlets of an operator, hand-written in a DAG of this file."""
    with DAG("dag", schedule=None, default_args=dag_args or {}):
        return operator(task_id="task", module="m", **arguments).outlets


@pytest.mark.parametrize(
    ("path", "given", "uri"),
    [
        ("build/model.json", {"workdir": "/data"}, "file:///data/build/model.json"),
        ("./build//x/../model.json", {"workdir": "/data/"}, "file:///data/build/model.json"),
        ("/data/build/model.json", {"workdir": "."}, "file:///data/build/model.json"),
        ("/data/build/model.json", {}, "file:///data/build/model.json"),
        ("build/", {"workdir": "."}, f"file://{HERE}/build"),
        ("a", {"workdir": "../x"}, f"file://{os.path.dirname(HERE)}/x/a"),
        ("a", {"workdir": Path("/data")}, "file:///data/a"),
        ("ü ?#%.txt", {"workdir": "/data"}, "file:///data/%C3%BC%20%3F%23%25.txt"),
        ("~/a", {}, f"file://{os.path.expanduser('~')}/a"),
        ("a/../b", {"sewer_conn_id": "s"}, "x-sewer://s/b"),
        ("a", {"sewer_conn_id": "s", "workdir": "/data"}, "file:///data/a"),
    ],
)
@pytest.mark.parametrize("operator", [PythonModuleOperator, SlurmModuleOperator])
def test_outlets_of_products_equal_product_asset(operator, path, given, uri):
    """Another DAG can be scheduled on it; the URI alone names it as well."""
    (asset,) = outlets(operator, parameters_and_flags={"out": Product(path)}, **given)

    assert asset == product_asset(path, **given) == Asset(uri)
    assert asset.uri == uri


def test_outlets_use_workdir_of_default_args():
    """As for the task itself."""
    assert outlets(products=["a"], dag_args={"workdir": "/data"}) == [Asset("file:///data/a")]


@pytest.mark.filterwarnings("ignore:.*workdir is not given")
@pytest.mark.parametrize(
    "given",
    [
        {"products": ["a"]},
        {"products": ["{{ ds }}/a"], "workdir": "/data"},
        {"products": ["a"], "workdir": "{{ var.value.place }}"},
        {"products": ["a"], "sewer_conn_id": "{{ params.conn }}"},
        {"products": ["a"], "workdir": BaseOperator(task_id="before").output},
        {"products": [Product("a", temporary=True)], "workdir": "/data"},
    ],
)
def test_outlets_exclude_products_with_unknown_location(given):
    """Nor is one that does not stay."""
    assert outlets(**given) == []


@pytest.mark.parametrize(
    ("path", "given", "error"),
    [
        ("a", {}, "path must be absolute or have a workdir or sewer_conn_id"),
        ("{{ ds }}/a", {"workdir": "/data"}, "and no templates, got '{{ ds }}/a'"),
        ("a", {"workdir": 3}, "workdir must be a path, got 3"),
        (3, {}, "path must be a path, got 3"),
    ],
)
def test_product_asset_with_unknown_location_raises(path, given, error):
    """With the line that asks for it."""
    with pytest.raises(SewerError) as caught:
        product_asset(path, **given)

    assert str(caught.value).startswith(f"{__file__}:")
    assert error in str(caught.value)


@pytest.mark.parametrize("how", ["", ".map(n=[1, 2])"], ids=["plain", "mapped"])
def test_outlets_of_two_dag_folders_differ(tmp_path, how):
    """Each project has its own folder, with equal settings relative to it."""
    found = []
    for project in ("alpha", "beta"):
        folder = tmp_path / project
        folder.mkdir()
        (folder / "flow.py").write_text(
            "from airflow_provider_sewer import Product, Task\n"
            f"Task('train', 'm', {{'out': Product('build/{{n}}.json'), 'n': 0}}){how}\n"
        )
        source = (
            "from airflow.sdk import DAG\n"
            "from airflow_provider_sewer.operators.assets import product_asset\n"
            "from airflow_provider_sewer.task_group import sewer_task_group\n"
            "with DAG('dag', schedule=None) as dag:\n"
            "    sewer_task_group('flow.py', group_id='g', workdir='.')\n"
            "asset = product_asset('build/1.json', workdir='.')\n"
        )
        made = {}
        exec(compile(source, str(folder / "dag.py"), "exec"), {"__name__": project, "__file__": source}, made)
        names = [outlet.name for outlet in made["dag"].get_task("g.train").outlets]
        assert (made["asset"].name in names) == bool(how)
        found += names

    numbers = (1, 2) if how else ("%7Bn%7D",)
    assert found == [f"file://{tmp_path}/{name}/build/{n}.json" for name in ("alpha", "beta") for n in numbers]


def test_asset_uri_ignores_dag_bundle_version(monkeypatch, tmp_path):
    """The DAG processor reads the newest state, and a worker the version of its run."""
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path))
    folders = ["mine/tracking_repo/dags", "mine/versions/4f1c/dags", "mine/versions/77ab/dags"]

    uris = {PathBase(".", None, str(tmp_path / folder)).uri("build/a") for folder in folders}

    assert uris == {f"file://{tmp_path}/mine/dags/build/a"}
    assert PathBase("/data", None, str(tmp_path / folders[1])).uri("a") == "file:///data/a"
    assert PathBase(".", None, str(tmp_path / "mine/dags")).uri("a") == f"file://{tmp_path}/mine/dags/a"
    assert PathBase(".", None, "/elsewhere/versions/x").uri("a") == "file:///elsewhere/versions/x/a"
