"""The provider as users install it: the built wheel, in an environment that holds nothing else of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from airflow.sdk import task

from airflow_provider_sewer import __version__
from airflow_provider_sewer.get_provider_info import get_provider_info

ROOT = Path(__file__).resolve().parents[2]


def run(*argv: object, **kwargs) -> str:
    """Run a command that has to succeed, and return its stdout."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def airflow_command(tmp_path_factory):
    """Build the wheel, install it into a clean environment, and return a function that calls `airflow` there."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    venv.create(folder / "venv", with_pip=False)
    (wheel,) = folder.glob("*.whl")
    constraints = ROOT / ".dev" / "constraints.txt"
    run(*pip, "--python", folder / "venv/bin/python", "install", wheel, "--constraint", constraints)
    env = {"PATH": f"{folder}/venv/bin:/usr/bin:/bin", "AIRFLOW_HOME": str(folder / "home"), "HOME": os.environ["HOME"]}
    return lambda *arguments: run(folder / "venv/bin/airflow", *arguments, env=env, cwd=folder)


def test_providers_list_contains_sewer(airflow_command):
    """`airflow providers get` describes it, with its version."""
    described = airflow_command("providers", "get", "airflow-provider-sewer", "--output", "json")
    assert json.loads(described[described.index("[") :]) == [
        {"Provider": "airflow-provider-sewer", "Version": __version__}
    ]


def test_connection_types_contain_sewer(airflow_command):
    """`airflow providers hooks` finds and can import the hook."""
    listed = airflow_command("providers", "hooks", "--output", "json")
    hooks = {hook["connection_type"]: hook for hook in json.loads(listed[listed.index("[") :])}
    assert hooks["sewer"] == {
        "connection_type": "sewer",
        "class": "airflow_provider_sewer.hooks.sewer.SewerHook",
        "conn_id_attribute_name": "sewer_conn_id",
        "package_name": "airflow-provider-sewer",
        "hook_name": "Sewer",
    }


def test_connection_form_hides_unused_fields(airflow_command):
    """`airflow providers behaviours` shows the form's hidden fields."""
    listed = airflow_command("providers", "behaviours", "--output", "json")
    behaviours = {row["field_behaviours"]: row for row in json.loads(listed[listed.index("[") :])}
    assert "sewer" in behaviours


def test_get_provider_info_matches_airflow_schema():
    """One wrong field would keep Airflow from finding any provider at all."""
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_get_provider_info_modules_are_importable():
    """All modules in the provider metadata exist."""
    info = get_provider_info()
    parts = ("operators", "hooks", "triggers")
    modules = [name for part in parts for entry in info[part] for name in entry["python-modules"]]
    for module in modules:
        import_module(module)
    links = [
        getattr(import_module(module), name) for module, _, name in (x.rpartition(".") for x in info["extra-links"])
    ]
    assert (len(modules), len(links)) == (6, 1)


def test_task_decorators_are_registered():
    """As `@task.python_module` and `@task.slurm_module`, like those of other providers."""
    for name in ("python_module", "slurm_module"):
        assert getattr(task, name).__name__ == f"{name}_task"
