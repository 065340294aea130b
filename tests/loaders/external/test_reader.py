"""Loading of workflow files in another interpreter."""

from __future__ import annotations

import os

import pytest

from airflow_provider_sewer import load_workflow
from airflow_provider_sewer.core.errors import WorkflowFileError
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.serialization import workflow_to_data
from airflow_provider_sewer.loaders.external.reader import read_tasks
from airflow_provider_sewer.loaders.python_file import load_tasks

from .external_env import refusal

RICH = '''
from datetime import timedelta
import helper
from pathlib import Path

generate = Task("generate", "digits.generate", {"out": Product("build/raw.npz"), "n": 500, "threads": Ignored(4)})
train = Task(
    "Train: größe", "digits.train",
    {"in": Dependency("build/raw.npz"), "seed": generate.result["seed"], "x": Path("y")},
    python="env/bin/python", env={"A": "b"}, workdir="data", run_on="slurm", slurm={"mem_gb": 8}, resources={"gpu": 1},
    operator_kwargs={"retry_delay": timedelta(minutes=5)},
)
many = Task("many", "digits.noise", {"out": Product("build/{n}.npz")}).map(n=[1, 2, 3])

call = Task(helper.NAME, function="digits.report:show", kwargs={"seeds": [generate.result["seed"]]})

@workflow
def nightly():
    """Every night."""
    (generate >> [train, call] >> many).run(env={"C": "d"})

@workflow
def hourly():
    generate.run()
'''


def test_external_read_workflow_equals_local_workflow(any_land):
    """Each version of Python reads a file to the same workflow, its lines and its folder included."""
    any_land.write("NAME = 'call'", "helper.py")
    any_land.write(RICH)

    for name in ("nightly", "hourly"):
        there, here = workflow_to_data(any_land.read(name)), workflow_to_data(load_workflow(any_land.file, name))
        assert abs(there.pop("source")[1] - here.pop("source")[1]) <= 1  # that of def, or that of the line above it
        assert there == here


def test_external_read_workflow_imports_from_its_environment(any_land):
    """From its owner's project, in each version of Python; modules of this process are not used."""
    any_land.install("project/__init__.py", "SIZES = [10, 20]")
    any_land.write("import project\nfor size in project.SIZES: Task(f'train {size}', 'project.train', {'size': size})")

    with pytest.raises(WorkflowFileError, match=r"No module named 'project'.* --read-with-interpreter"):
        load_workflow(any_land.file)

    workflow = any_land.read()
    assert list(workflow.tasks) == ["train 10", "train 20"]
    assert str(workflow.tasks["train 10"].source) == f"{any_land.file}:3"


def test_external_read_workflow_resolves_annotations_in_every_python(any_land):
    """Also those of types joined by a bar, which Python 3.9 cannot join."""
    any_land.write(
        """
from __future__ import annotations
from pathlib import Path
from typing import Annotated
from airflow_provider_sewer import Dependency, Product, task

@task
def copy(out: Annotated[Path | None, Product], source: Annotated[Path, Dependency] | list[Path] | None = None): ...
""",
        "helper.py",
    )
    any_land.write("import helper\nhelper.copy('a')\nhelper.copy('b', 'a')")

    assert any_land.read().edges == [("copy", "copy_2")]


def test_external_read_workflow_returns_all_tasks(land):
    """Those that a workflow runs, and those that none does."""
    land.write("a = Task('a', 'm')\nb = Task('b', 'm')\n@workflow\ndef w():\n    b.run(env={'X': '1'})")

    arrived = read_tasks(land.file, ExecutionSettings(python=str(land.python)))

    found = [(task.name, task.settings.env, task.source) for task in arrived]
    assert found == [(task.name, task.settings.env, task.source) for task in load_tasks(land.file)]
    assert [name for name, _, _ in found] == ["b", "a"]


def test_external_read_workflow_prints_to_stderr(land, capfd):
    """Its own output and that of its child processes, before the workflow is complete."""
    land.write("import os\nprint('from the file')\nos.system('echo from a child')\nTask('a', 'm')")

    land.read()

    found = capfd.readouterr()
    assert found.out == ""
    assert sorted(found.err.splitlines()) == ["from a child", "from the file"]


# --- isolation


def test_external_read_workflow_hides_site_packages_of_this_package(land):
    """Airflow, which lies in the same folder as this package may, is not there for the file."""
    land.write("""
        import importlib.util
        names = ("airflow", "click", "pytest", "airflow_provider_sewer")
        Task(",".join(name for name in names if importlib.util.find_spec(name)), "m")
    """)

    assert land.tasks() == ["airflow_provider_sewer"]


def test_external_read_workflow_uses_this_version_of_the_package(land):
    """Another version, installed in the environment, does not get in between."""
    land.install("airflow_provider_sewer/__init__.py", "raise SystemExit('another version')")
    land.write("Task('a', 'm')")

    assert land.tasks() == ["a"]


def test_external_read_workflow_does_not_import_from_current_directory(land, tmp_path, monkeypatch):
    """A file is read to the same wherever that is done."""
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "beside_me.py").touch()
    monkeypatch.chdir(tmp_path)
    land.write("import json\nimport beside_me")

    assert "No module named 'beside_me'" in refusal(land)


def test_external_read_workflow_uses_task_environment(land, monkeypatch):
    """The given variables and the short list, no variable of Airflow."""
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("MINE", "mine")
    land.write("import os\nTask(os.environ['GIVEN'], 'm', {'x': [name for name in os.environ if name[0] in 'AM']})")

    assert land.read(env={"GIVEN": "a"}).tasks["a"].parameters_and_flags == {"x": []}
    assert land.read(env={"GIVEN": "a"}, inherit_env=["MINE"]).tasks["a"].parameters_and_flags == {"x": ["MINE"]}
    assert refusal(land).endswith(
        "'GIVEN'. An external interpreter has the environment of the tasks only; pass the variable with --env or env="
    )


def test_external_read_workflow_writes_no_bytecode(land):
    """Neither beside the file nor in the environment."""
    land.install("project.py", "")
    land.write("", "helper.py")
    land.write("import helper, project\nTask('a', 'm')")

    land.read()

    assert sorted(os.listdir(land.folder)) == ["flow.py", "helper.py"]
    assert sorted(os.listdir(land.packages)) == ["project.py"]
