"""The notebook on pipelines with Hera, line by line where the words differ.

A container that runs a command is a module here, `Steps` and `parallel()` are `>>` and lists, an artifact is a product,
and an environment variable of the list one of `env`. The manifests are those of `sppe convert --to argo`, with one
image for all tasks; an interpreter of the DAG runs them. A container without Python has no counterpart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import airflow_provider_sewer
from tests.exporters.argo_interpreter import Interpreter, check

ROOT = Path(airflow_provider_sewer.__file__).parent.parent

COWSAY = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--message")
print(f"< {parser.parse_args().message} >")
"""

#: "Setting Up The Workflow", the second approach: a function and a program, with variables.
FUNCTION_AND_PROGRAM = """
from airflow_provider_sewer import Task, workflow

env_list = {"SOME_ENV": "SOME_VAL", "TASKSAY": "Workflows Are Powerful!"}
t1 = Task(name="source-task", function="source:some_func", env=env_list)
t2 = Task(name="container-task", module="run", env=env_list)

@workflow
def unique_name_of_workflow():
    (t1 >> t2).run()
"""

#: "Steps and Parallelism".
STEP_PARALLEL = """
from airflow_provider_sewer import Task, workflow

def container_task(name, message):
    return Task(name, module="cowsay", parameters_and_flags={"message": message})

@workflow
def step_parallel():
    A = container_task("A", "Hi!")
    B = container_task("B", "Hello!")
    C = container_task("C", "General Kenobi!")
    (A >> [B, C]).run()
"""

#: "Artifact Passing".
ARTIFACT_PASSING = """
from airflow_provider_sewer import Dependency, Product, Task

Task("createfile", module="creator", parameters_and_flags={"out": Product("tmp/hello.txt")})
Task("readfile", module="reader", args=[Dependency("tmp/hello.txt")])
"""


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the files of the containers."""
    (tmp_path / "cowsay.py").write_text(COWSAY)
    (tmp_path / "source.py").write_text("import os\ndef some_func():\n    print(os.getenv('TASKSAY'))\n")
    (tmp_path / "run.py").write_text("import os; print(os.environ['SOME_ENV'])")
    (tmp_path / "creator.py").write_text("import sys; open(sys.argv[2], 'w').write('Hello from Task1')")
    (tmp_path / "reader.py").write_text("import sys; print(open(sys.argv[1]).read())")
    return tmp_path


@pytest.fixture
def sppe(folder):
    """Write a workflow file, and run a command on it."""

    def run(source: str, command: str = "run", *arguments: str) -> subprocess.CompletedProcess:
        (folder / "flow.py").write_text(source)
        sppe = [sys.executable, "-c", "from airflow_provider_sewer.cli import main; main()"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*sppe, command, "-p", "flow.py", *arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )

    return run


def test_function_and_module_run_with_env(sppe):
    """One after the other."""
    output = sppe(FUNCTION_AND_PROGRAM, "run", "-i", sys.executable).stdout
    assert output.splitlines() == ["[source-task] Workflows Are Powerful!", "[container-task] SOME_VAL"]


def test_run_executes_parallel_steps_concurrently(sppe):
    """A, and then B and C, in whichever order."""
    output = sppe(STEP_PARALLEL, "run", "-i", sys.executable).stdout.splitlines()
    assert output[0] == "[A] < Hi! >"
    assert set(output[1:]) == {"[B] < Hello! >", "[C] < General Kenobi! >"}


def test_load_workflow_returns_graph_without_running(sppe):
    """As data, where the original has `to_dict`, and as the picture that the notebook shows."""
    data = json.loads(sppe(STEP_PARALLEL, "show", "--format", "json").stdout)
    assert data["edges"] == [["A", "B"], ["A", "C"]]
    assert sppe(STEP_PARALLEL, "show", "--format", "mermaid").stdout.count("-->") == 2


def test_product_is_passed_between_steps(sppe, folder):
    """It ties the two without another word."""
    output = sppe(ARTIFACT_PASSING, "run", "-i", sys.executable).stdout
    assert output == "[readfile] Hello from Task1\n"
    assert (folder / "tmp" / "hello.txt").read_text() == "Hello from Task1"


#: "Accessing the Shared Data Bucket".
SHARED_DATA = """
from airflow_provider_sewer import Dependency, Task

Task("readit", module="reader", args=[Dependency("/mnt/vol/shared-data/test-read.txt")])
"""


@pytest.fixture
def run_on_argo(sppe, folder, tmp_path_factory):
    """Convert a workflow file to a manifest, check it, and run it; return the outputs of its pods."""

    def run(source: str, *options: str) -> tuple[list[str], dict[str, str]]:
        manifest = yaml.safe_load(sppe(source, "convert", "--to", "argo", "--image", "i:0.1.0", *options).stdout)
        check(manifest)
        interpreter = Interpreter(manifest, tmp_path_factory.mktemp("pods"), folder)
        interpreter.run()
        return interpreter.order, interpreter.output

    return run


def test_function_and_module_run_with_env_on_argo(run_on_argo):
    """One after the other, each in a pod."""
    order, output = run_on_argo(FUNCTION_AND_PROGRAM)
    assert order == ["source-task", "container-task"]
    assert output == {"source-task": "Workflows Are Powerful!\n", "container-task": "SOME_VAL\n"}


def test_parallel_steps_have_the_same_upstream_on_argo(run_on_argo):
    """A, and then B and C."""
    order, output = run_on_argo(STEP_PARALLEL)
    assert (order[0], sorted(order[1:])) == ("A", ["B", "C"])
    assert output["C"] == "< General Kenobi! >\n"


def test_product_is_an_artifact_on_argo(run_on_argo):
    """Argo carries it from pod to pod."""
    assert run_on_argo(ARTIFACT_PASSING)[1]["readfile"] == "Hello from Task1\n"


def test_dependency_is_on_the_mounted_claim_on_argo(sppe):
    """A file that no task produces is on the volume."""
    text = sppe(SHARED_DATA, "convert", "--to", "argo", "--image", "i", "--volume-claim", "shared-data:/mnt/vol").stdout
    manifest = yaml.safe_load(text)
    check(manifest)
    (template, _) = manifest["spec"]["templates"]
    assert template["container"]["args"] == ["-m", "reader", "/mnt/vol/shared-data/test-read.txt"]
    assert template["container"]["volumeMounts"] == [{"name": "work", "mountPath": "/mnt/vol"}]
