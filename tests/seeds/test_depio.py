"""The README of depio: its three examples, line by line where the words differ, and its limits.

Functions stand in a module beside, for here every task runs in a process of its own, maybe of another Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import airflow_provider_sewer
from airflow_provider_sewer import Dependency, Product, load_workflow
from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.workflow import Workflow

ROOT = Path(airflow_provider_sewer.__file__).parent.parent

#: The function of the first example; only its import lines are others.
STEPS = """
import time
import pathlib
from typing import Annotated

from airflow_provider_sewer import Product, Dependency
from airflow_provider_sewer import task

@task("datapipeline")
def slowfunction(output: Annotated[pathlib.Path, Product],
            input: Annotated[pathlib.Path, Dependency] = None,
            sec:int = 0
            ):
    print(f"A function that is reading from {input} and writing to {output} in {sec} seconds.")
    time.sleep(sec)
    with open(output,'w') as f:
        f.write("Hallo from depio")
"""

#: The first example: there is no pipeline to make and to add to, and the seconds are fewer.
DECORATED = """
import pathlib

from steps import slowfunction

BLD = pathlib.Path("build")
BLD.mkdir(exist_ok=True)

print("Touching an initial file")
(BLD/"input.txt").touch()

slowfunction(BLD/"output1.txt",input=BLD/"input.txt", sec=0)
slowfunction(BLD/"final1.txt",BLD/"output1.txt", sec=0)
"""

#: The second: arguments have names, and their annotations mark products.
FUNCTIONAL = """
import pathlib

from airflow_provider_sewer import Product, Dependency, Task

BLD = pathlib.Path("build")
BLD.mkdir(exist_ok=True)

print("Touching an initial file")
(BLD/"input.txt").touch()

SLOW = "steps:slowfunction"
one = {"output": Product(BLD/"output1.txt"), "input": Dependency(BLD/"input.txt"), "sec": 0}
two = {"output": Product(BLD/"final1.txt"), "input": Dependency(BLD/"output1.txt"), "sec": 0}
Task("functionaldemo1", function=SLOW, kwargs=one)
Task("functionaldemo2", function=SLOW, kwargs=two)
"""

#: The third: five tasks, of which three are one.
BY_HAND = """
from airflow_provider_sewer import Task

t1 = Task("functionaldemo1", function="steps:slowfunction", kwargs={"sec": 0.01})
t2 = Task("functionaldemo1", function="steps:slowfunction", kwargs={"sec": 0.01})
t3 = Task("functionaldemo1", function="steps:slowfunction", kwargs={"sec": 0.01})
t4 = Task("functionaldemo2", function="steps:slowfunction", kwargs={"sec": 0.02}, depends_on=[t3])
t5 = Task("functionaldemo3", function="steps:slowfunction", kwargs={"sec": 0.03}, depends_on=[t4])
"""
SLEEPS = """
import time

def slowfunction(sec:int = 0):
    print(f"A function that is doing something for {sec} seconds.")
    time.sleep(sec)
"""


class Project:
    """A folder with a workflow file and the module of its functions, and ``sppe`` run there without a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "flow.py"

    def write(self, flow: str, steps: str = STEPS) -> Project:
        self.file.write_text(dedent(flow))
        (self.folder / "steps.py").write_text(dedent(steps))
        return self

    def load(self) -> Workflow:
        return load_workflow(self.file)

    def sppe(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        code = "from airflow_provider_sewer.cli import main; main()"
        return self._started("-c", code, arguments[0], "-p", "flow.py", "-i", sys.executable, *arguments[1:])

    def plain(self) -> subprocess.CompletedProcess[str]:
        return self._started("flow.py")

    def _started(self, *argv: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        argv = (sys.executable, *argv)
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def text(self, name: str) -> str | None:
        path = self.folder / "build" / name
        return path.read_text() if path.exists() else None


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    """Return an empty project, and stand in it: the examples make folders when they are read."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


# --- the three examples


@pytest.mark.parametrize(
    ("flow", "names"),
    [(DECORATED, ["datapipeline", "datapipeline_2"]), (FUNCTIONAL, ["functionaldemo1", "functionaldemo2"])],
    ids=["decorator", "functional interface"],
)
def test_product_paths_connect_tasks_of_both_interfaces(project, flow, names):
    """Path dependencies, products and task dependencies are those of the document's table, and both files are made."""
    graph = project.write(flow).load()

    assert list(graph.tasks) == names
    assert [task.dependencies for task in graph.tasks.values()] == [
        (Dependency("build/input.txt"),),
        (Dependency("build/output1.txt"),),
    ]
    assert [task.products for task in graph.tasks.values()] == [
        (Product("build/output1.txt"),),
        (Product("build/final1.txt"),),
    ]
    assert graph.edges == [tuple(names)]

    done = project.sppe("run")
    assert done.returncode == 0, done.stderr
    assert (project.text("output1.txt"), project.text("final1.txt")) == ("Hallo from depio",) * 2
    assert "2 of 2 tasks succeeded" in done.stderr


def test_equal_tasks_are_merged(project):
    """The same function with the same arguments runs once; tasks that depend on any of these calls depend on that."""
    graph = project.write(BY_HAND, SLEEPS).load()

    assert list(graph.tasks) == ["functionaldemo1", "functionaldemo2", "functionaldemo3"]
    assert graph.edges == [("functionaldemo1", "functionaldemo2"), ("functionaldemo2", "functionaldemo3")]
    done = project.sppe("run")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "A function" in line] == [
        "[functionaldemo1] A function that is doing something for 0.01 seconds.",
        "[functionaldemo2] A function that is doing something for 0.02 seconds.",
        "[functionaldemo3] A function that is doing something for 0.03 seconds.",
    ]


def test_equal_calls_of_task_function_are_merged(project):
    """As with the functional interface; the numbers of the others go on without a gap."""
    steps = "from airflow_provider_sewer import task\n@task\n" + SLEEPS.partition("import time\n")[2].lstrip()
    flow = """
        from steps import slowfunction

        t1, t2, t3 = slowfunction(1), slowfunction(1), slowfunction(sec=1)
        t3 >> slowfunction(2) >> slowfunction(3)
    """

    graph = project.write(flow, steps).load()

    assert graph.edges == [("slowfunction", "slowfunction_2"), ("slowfunction_2", "slowfunction_3")]


# --- which tasks run


def with_mode(mode: str) -> str:
    return STEPS.replace('@task("datapipeline")', f'@task("datapipeline", run_when="{mode}")')


def ran(project: Project) -> list[str]:
    """Run, and return the names of the tasks that did."""
    done = project.sppe("run")
    assert done.returncode == 0, done.stderr
    return [line.split("]")[0][1:] for line in done.stdout.splitlines() if "A function that" in line]


#: The example without the line that touches its input each time it is read.
UNTOUCHED = DECORATED.replace('(BLD/"input.txt").touch()\n', "")


@pytest.mark.parametrize(
    ("mode", "after_nothing", "after_input", "after_loss"),
    [
        ("always", [1, 2], [1, 2], [1, 2]),
        ("missing", [], [], [2]),
        ("stale", [], [1, 2], [2]),
    ],
)
def test_run_when_matches_build_modes(project, mode, after_nothing, after_input, after_loss):
    """``ALWAYS``, ``IF_MISSING`` and ``IF_NEW`` are always, missing and stale; and stale does compare times."""
    project.write(UNTOUCHED, with_mode(mode))
    (project.folder / "build").mkdir()
    (project.folder / "build" / "input.txt").touch()
    names = {1: "datapipeline", 2: "datapipeline_2"}

    assert ran(project) == [names[1], names[2]]
    assert ran(project) == [names[number] for number in after_nothing]
    os.utime(project.folder / "build" / "input.txt", (1_000_000_000, 2_000_000_000))
    assert ran(project) == [names[number] for number in after_input]
    (project.folder / "build" / "final1.txt").unlink()
    assert ran(project) == [names[number] for number in after_loss]


def test_run_of_up_to_date_tasks_succeeds(project):
    """``python flow.py``, as the document runs its files, twice."""
    flow = """
        import pathlib, sys
        from steps import slowfunction

        BLD = pathlib.Path("build")
        first = slowfunction(BLD/"output1.txt", input=BLD/"input.txt")
        (first >> slowfunction(BLD/"final1.txt", BLD/"output1.txt")).run(sys.executable)
    """
    project.write(flow, with_mode("missing"))
    (project.folder / "build").mkdir()
    (project.folder / "build" / "input.txt").touch()

    first, second = project.plain(), project.plain()

    assert first.returncode == 0, first.stderr
    assert first.stdout.count("A function that") == 2
    assert second.returncode == 0, second.stderr
    assert "A function that" not in second.stdout


# --- limits of depio


def test_partial_product_is_not_committed(project):
    """A function that fails half-way leaves no product under its real name; the next run makes it."""
    steps = with_mode("missing").replace(
        "f.write(",
        "f.write('half')\n        f.flush()\n        open('trip').close()\n        f.seek(0)\n        f.write(",
    )
    project.write(DECORATED, steps)

    failed = project.sppe("run")
    assert failed.returncode == 1
    assert "FileNotFoundError" in failed.stderr
    assert "datapipeline_2  upstream failed" in failed.stderr
    assert (project.text("output1.txt"), project.text("output1.txt.failed")) == (None, "half")

    (project.folder / "trip").touch()
    assert ran(project) == ["datapipeline", "datapipeline_2"]
    assert project.text("output1.txt") == "Hallo from depio"


def test_missing_product_fails_task(project):
    """Instead of everything waiting for it."""
    project.write(DECORATED, STEPS.replace("with open(output,'w')", "with open('elsewhere','w')"))

    done = project.sppe("run")

    assert done.returncode == 1
    assert "datapipeline: exit code 0, but product build/output1.txt was not created" in done.stderr


def test_missing_dependency_is_reported_before_run(project):
    """Instead of everything waiting for it; with the line of the task."""
    project.write(UNTOUCHED)

    done = project.sppe("run")

    assert done.returncode == 2
    assert "A function that" not in done.stdout
    assert "flow.py:" in done.stderr
    assert (
        "task 'datapipeline' needs 'build/input.txt', which is not a product of any task and does not exist"
        in done.stderr
    )


def test_cycle_through_paths_is_reported_before_run(project):
    """Instead of everything waiting for itself."""
    flow = DECORATED.replace('input=BLD/"input.txt"', 'input=BLD/"final1.txt"')

    with pytest.raises(InvalidWorkflow, match="Cyclic dependency"):
        project.write(flow).load()


def test_parameters_are_not_shared_between_tasks(project):
    """Cluster options, too, are set for each function."""
    steps = """
        from airflow_provider_sewer import task

        @task(slurm={"gpus_per_node": 1}, env={"A": 1})
        def one(): ...

        @task(slurm={"mem_gb": 2})
        def other(): ...
    """
    tasks = project.write("from steps import one, other\none(), other()", steps).load().tasks

    assert dict(tasks["one"].slurm.slurm) == {"gpus_per_node": 1}
    assert dict(tasks["other"].slurm.slurm) == {"mem_gb": 2}
    assert dict(tasks["other"].settings.env) == {}
