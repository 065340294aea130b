"""The model runs on any Python from 3.9 on, and needs nothing but its standard library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

BUILD = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from airflow_provider_sewer.core.command import interpreter_command, shown
from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.recording import recording
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow, workflow

a = Task("a", "pkg.a", {"batch_size": 5, "verbose": True, "in": ["x", "y"], "config": {"k": [1]}}, env={"N": 1})
b = Task("b", "pkg.b", python="env/bin/python", depends_on=a, run_on="slurm", slurm={"mem_gb": 8})

@workflow
def daily():
    (a >> b >> [Task("c", "m"), Task("d", "m")]).run(workdir="data")

with recording() as recorder:
    daily()
graph = Workflow.of_runs("daily", recorder.runs)
try:
    Workflow("circle", [a, b], [(b, a)])
except InvalidWorkflow as error:
    circle = str(error)

standard = os.path.dirname(os.__file__)
def is_foreign(module):
    file = getattr(module, "__file__", None)
    return file and (not file.startswith(standard) or "site-packages" in file)

print(json.dumps({
    "edges": graph.edges,
    "command": shown(interpreter_command("python", a.call(), build_environment({}), None).argv),
    "circle": circle.splitlines()[0],
    "foreign": sorted({name.partition(".")[0] for name, module in sys.modules.items() if is_foreign(module)}),
}))
"""

READ = """
import json, pathlib, sys  # which the files import themselves
sys.path.insert(0, sys.argv[1])
from airflow_provider_sewer import load_workflow
before = dict(sys.modules)
graph = load_workflow(sys.argv[2])
print(json.dumps({"tasks": list(graph.tasks), "new": sorted(set(sys.modules) - set(before))}))
"""


def ask(python: Path | str, code: str, *args: object) -> dict:
    """Run code in an interpreter that sees neither site-packages nor this process's surroundings."""
    asked = subprocess.run(
        [python, "-I", "-S", "-B", "-c", code, ROOT, *args], capture_output=True, text=True, check=False, timeout=60
    )
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def test_every_python_from_3_9_on_builds_a_workflow(any_python):
    """Tasks, chains, recording, checks and commands, with only the standard library imported."""
    assert ask(any_python, BUILD) == {
        "edges": [["a", "b"], ["b", "c"], ["b", "d"]],
        "command": "python -u -m pkg.a --batch-size 5 --in x --in y --config '{\"k\": [1]}' --verbose",
        "circle": "Cyclic dependency:",
        "foreign": ["airflow_provider_sewer"],
    }


def test_every_python_from_3_9_on_reads_a_workflow_file(any_python, tmp_path):
    """With a helper, former names, and the name of a module of Python; nothing of the file stays."""
    (tmp_path / "helper.py").write_text("NAME = 'a'")
    file = tmp_path / "json.py"
    file.write_text("from sewerpipe.task import Task\nimport helper, json\njson.dumps\nTask(helper.NAME, 'm')")

    assert ask(any_python, READ, file) == {"tasks": ["a"], "new": []}


def test_every_python_from_3_9_on_reads_decorated_functions_and_loops(any_python, tmp_path):
    """With annotations as text, of types that this Python could not write otherwise."""
    (tmp_path / "steps.py").write_text(
        "from __future__ import annotations\n"
        "from pathlib import Path\n"
        "from typing import Annotated, Optional\n"
        "from airflow_provider_sewer import Dependency, Product, task\n"
        "@task(run_when='missing')\n"
        "def train(out: Annotated[Path, Product], data: Optional[Annotated[Path, Dependency]] = None,"
        " n: int | None = None): ...\n"
    )
    file = tmp_path / "flow.py"
    file.write_text("from steps import train\nfirst = train('a')\ntrain.partial(out='{n}', data='a').map(n=[1, 2])")

    assert ask(any_python, READ, file) == {"tasks": ["train", "train_2[n=1]", "train_2[n=2]"], "new": []}


def test_importing_the_package_imports_neither_airflow_nor_a_terminal_library():
    """A workflow file is loaded for every parse of a DAG; its first line has to be quick."""
    code = "import airflow_provider_sewer, json, sys; print(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    asked = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=60)

    slow = {"airflow", "yaml", "click", "rich", "psutil", "pendulum", "sqlalchemy", "asyncio", "multiprocessing"}
    assert slow.isdisjoint(json.loads(asked.stdout))
