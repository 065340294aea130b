"""Activation of the interpreter's environment for programs that a task starts by name."""

from __future__ import annotations

import json
import os
import sys
import venv
from pathlib import Path

import pytest

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.execution.activation import activated, interpreter_variables

#: Prints the programs found by name, and the active environment.
WHICH = """
import json, os, shutil
found = {name: shutil.which(name) for name in ("python", "own-tool")}
active = {name: os.environ.get(name) for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME")}
print(json.dumps({**found, **active}))
"""


@pytest.fixture
def own(tmp_path) -> Path:
    """Return a virtual environment with a program of its own."""
    venv.create(tmp_path / "own", symlinks=True, with_pip=False)
    return with_tool(tmp_path / "own")


@pytest.fixture
def conda(tmp_path) -> Path:
    """Return a folder with the layout of a conda environment."""
    (tmp_path / "conda" / "conda-meta").mkdir(parents=True)
    (tmp_path / "conda" / "bin").mkdir()
    executable(tmp_path / "conda" / "bin" / "python3.11")
    (tmp_path / "conda" / "bin" / "python").symlink_to("python3.11")
    return with_tool(tmp_path / "conda")


def with_tool(environment: Path) -> Path:
    executable(environment / "bin" / "own-tool")
    return environment


def executable(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def worker(monkeypatch) -> None:
    """Have this process run in an activated environment."""
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setenv("CONDA_PREFIX", "/conda/of/the/worker")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("inherit", [None, True, ["PATH"]])
def test_module_path_has_programs_of_its_interpreter_environment(modules, own, inherit) -> None:
    """In any environment of the worker, however much of it is inherited."""
    ran = modules.run(WHICH, settings=modules.settings(python=str(own / "bin" / "python"), inherit_env=inherit))

    assert json.loads(ran.value) == {
        "python": f"{own}/bin/python",
        "own-tool": f"{own}/bin/own-tool",
        "VIRTUAL_ENV": str(own),
        "CONDA_PREFIX": None,
        "PYTHONHOME": None,
    }


@pytest.mark.usefixtures("worker")
def test_activated_env_variables_override_interpreter(modules, own) -> None:
    """An explicit PATH overrides the interpreter's."""
    given = {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": "/mine"}
    settings = modules.settings(python=str(own / "bin" / "python"), env=given)

    found = json.loads(modules.run(WHICH, settings=settings).value)

    assert not (found["python"] or "").startswith(str(own))
    assert (found["own-tool"], found["VIRTUAL_ENV"]) == (None, "/mine")


def test_activated_inherit_env_by_name_overrides_interpreter(own) -> None:
    """PATH is inherited anyway: to name it decides nothing."""
    settings = ExecutionSettings(inherit_env=("PATH", "VIRTUAL_ENV"))

    env = activated({"PATH": "/bin", "VIRTUAL_ENV": "/worker"}, f"{own}/bin/python", settings)

    assert env == {"PATH": f"{own}/bin:/bin", "VIRTUAL_ENV": "/worker"}


def test_module_in_conda_environment_has_conda_variables(conda) -> None:
    """Also if its interpreter is called by a link that lies elsewhere, which Python follows."""
    link = conda.parent / "link"
    link.symlink_to(conda / "bin" / "python")

    for python in (link, conda / "bin" / "python"):
        env = activated({"PATH": "/bin", "VIRTUAL_ENV": "/other"}, str(python), ExecutionSettings())
        assert env == {"PATH": f"{conda}/bin:/bin", "CONDA_PREFIX": str(conda)}


def test_module_path_has_bin_of_interpreter_first_and_once(own) -> None:
    """In an activated environment it is there already."""
    for path in (f"{own}/bin:/bin", f"/bin:{own}/bin"):
        assert activated({"PATH": path}, f"{own}/bin/python", ExecutionSettings())["PATH"] == f"{own}/bin:/bin"


def test_module_without_path_has_system_folders_last(own) -> None:
    """As where there is no PATH at all."""
    assert activated({}, f"{own}/bin/python", ExecutionSettings())["PATH"] == f"{own}/bin:{os.defpath}"


@pytest.fixture
def system(tmp_path, monkeypatch) -> Path:
    """Return a folder that counts as one of the system, with an interpreter."""
    folder = tmp_path / "system"
    folder.mkdir()
    executable(folder / "python3")
    monkeypatch.setattr("airflow_provider_sewer.execution.activation._OF_THE_SYSTEM", {str(folder)})
    return folder


def test_system_interpreter_keeps_order_of_path(system, tmp_path) -> None:
    """The programs that a user has put before it are not hidden."""
    tools = tmp_path / "tools"
    tools.mkdir()

    env = activated({"PATH": f"{tools}:{system}"}, f"{system}/python3", ExecutionSettings())

    assert env["PATH"] == f"{tools}:{system}"


def test_system_interpreter_bin_precedes_other_python_in_path(system, own) -> None:
    """Otherwise python would be that of an environment, such as Airflow's."""
    env = activated({"PATH": f"{own}/bin:{system}"}, f"{system}/python3", ExecutionSettings())

    assert env["PATH"] == f"{system}:{own}/bin"


@pytest.mark.parametrize(
    ("env", "inherit", "left"),
    [
        ({}, None, ["PATH", "VIRTUAL_ENV", "CONDA_PREFIX"]),
        ({}, True, ["PATH", "VIRTUAL_ENV", "CONDA_PREFIX"]),
        ({"PATH": "/x"}, True, ["VIRTUAL_ENV", "CONDA_PREFIX"]),
        ({}, ["PATH", "CONDA_PREFIX"], ["PATH", "VIRTUAL_ENV"]),
    ],
)
def test_left_to_interpreter_excludes_variables_set_by_task(env, inherit, left) -> None:
    """By giving a variable, or naming it."""
    assert interpreter_variables(env, inherit) == left
