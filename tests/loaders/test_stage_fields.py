"""Stages in YAML support all fields of a Python file."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_sewer import SewerError, Workflow, load_workflow
from airflow_provider_sewer.core.placeholders import Ignored
from airflow_provider_sewer.loaders.workflow_files import load_tasks

from .stage_cases import EVERYTHING


def task_fields(workflow: Workflow) -> dict[str, Any]:
    """Return all fields of a workflow but its lines, in a form that can be compared."""
    tasks = {
        name: {
            field: value for field, value in vars(task).items() if field not in ("source", "identity", "mapped_task")
        }
        for name, task in workflow.tasks.items()
    }
    for fields in tasks.values():
        fields["depends_on"] = [up if isinstance(up, str) else up.name for up in fields["depends_on"]]
        fields["ignored"] = [each.value for each in fields["parameters_and_flags"].values() if type(each) is Ignored]
    mapped = [(each.name, each.values, each.each_with_each, list(map(repr, each))) for each in workflow.mapped.values()]
    return {
        "tasks": tasks,
        "mapped": mapped,
        "why": workflow.edge_reasons.reasons,
        "name": workflow.name,
        "doc": workflow.doc,
    }


def test_load_stages_supports_all_fields_of_task(write, tmp_path):
    """The same tasks, field by field, whichever file they are written in."""
    write("def noise(): ...\ndef train(): ...", "jobs.py", imports="")
    python = write("""
        from datetime import timedelta
        from airflow_provider_sewer import Dependency, External, Ignored, Product, Task

        around = {"python": "../venv/bin/python"}
        generate = Task(
            "generate", "digits.generate", args=["fast"], use_underscores=True, doc="Makes noise.", workdir=".",
            parameters_and_flags={"out": Product("build/raw.npz"), "n": 500, "verbose": True, "threads": Ignored(4)},
            resources={"gpu": 1}, env={"LEVEL": 1, "SHARED": "yes"}, slurm={"partition": "gpu", "mem_gb": 8}, **around,
            tags=["first", "nightly"], group="data.raw",
        )
        noise = Task(
            "noise model", function="jobs:noise", kwargs={
                "src": Dependency("build/raw.npz"),
                "dst": Product("build/noisy.npz", atomic=False, temporary=True, on_failure="remove"),
                "seed": generate.result["seed"],
                "first": generate.result["rows"][0],
                "last": Ignored(generate.result["rows"][-1]),
            },
            env={"LEVEL": 2, "SHARED": "yes"}, workdir="data", inherit_env=["CUDA_HOME"],
            slurm={"partition": "gpu", "mem_gb": 8}, **around,
        )
        train = Task(
            "train", function="jobs:train", depends_on="noise model", workdir=".",
            dependencies=[External("/data/labels.csv", timeout=60), "build/noisy.npz"], products="model.bin",
            stdin=External("rows.csv", timeout=5), stdout=Product("log.txt", atomic=False),
            run_when="stale", compare="content", stale_with=["code"], run_on="slurm",
            env={"LEVEL": 1, "SHARED": "yes"}, slurm={"partition": "gpu", "mem_gb": 16, "time": "1:30:00"}, **around,
            operator_kwargs={"retries": 2, "execution_timeout": timedelta(hours=1, minutes=30)},
        )
    """, imports="")  # fmt: skip
    stages = write(EVERYTHING, "stages.yaml", imports="")

    graph, expected = task_fields(load_workflow(stages)), task_fields(load_workflow(python))

    assert (graph["name"], graph["doc"]) == ("digits", "From noise to numbers.")
    assert graph == {**expected, "name": "digits", "doc": "From noise to numbers."}
    assert graph["tasks"]["generate"]["ignored"] == [4]


LOOPS = """
square: {function: "m:square", kwargs: {n: 0}, map: {n: [2, 3]}}
train:
  module: m.train
  parameters_and_flags:
    out: !product {path: "build/{n}/{model}.npz", temporary: true}
    data: !dependency "data/{n}.csv"
    jobs: !ignored 4
  depends_on: [square]
  map_product: {n: [10, 20], model: [svc, tree]}
side:
  module: m.side
  products: ["side/{data}"]
  map: {data: [!dependency a.csv, !dependency b.csv], seed: [!result square.0, !result square.1]}
later:
  function: m:later
  kwargs: {all: !result square, first: !result square.0.n, last: !result {stage: square, keys: [-1, n]}}
  depends_on: ["train[n=20,model=tree]", side]
each: {module: m.each, map: {of: !result square}}
over: {module: m.over, parameters_and_flags: {all: !result each}, map: {name: !result names}}
names: {function: "m:names"}
use: {module: m.use, parameters_and_flags: {of: !result over.0}}
"""

LOOPS_IN_PYTHON = """
from airflow_provider_sewer import Dependency, Ignored, Product, Task

square = Task("square", function="m:square", kwargs={"n": 0}).map(n=[2, 3])
train = Task(
    "train", "m.train",
    {
        "out": Product("build/{n}/{model}.npz", temporary=True), "data": Dependency("data/{n}.csv"),
        "jobs": Ignored(4),
    },
    depends_on=square,
).map_product(n=[10, 20], model=["svc", "tree"])
side = Task("side", "m.side", products=["side/{data}"]).map(
    data=[Dependency("a.csv"), Dependency("b.csv")], seed=square.result
)
last = {"last": square.result[-1]["n"]}
later = Task(
    "later", function="m:later", kwargs={"all": square.result, "first": square.result[0]["n"], **last},
    depends_on=[train[3], side],
)
each = Task("each", "m.each").map(of=square.result)
names = Task("names", function="m:names")
over = Task("over", "m.over", {"all": each.result}).map(name=names.result)
use = Task("use", "m.use", {"of": over.result[0]})
"""


def test_load_stages_maps_stage_like_task(write):
    """Over values, their combinations, results and runtime values; it stands for all its tasks."""
    stages = write(LOOPS, "stages.yaml", imports="")
    python = write(LOOPS_IN_PYTHON, imports="")

    graph, expected = task_fields(load_workflow(stages)), task_fields(load_workflow(python))

    assert graph["tasks"] == expected["tasks"]
    assert graph["why"] == expected["why"]
    assert sorted(graph["mapped"], key=str) == sorted(expected["mapped"], key=str)
    assert list(graph["tasks"])[:3] == ["square[n=2]", "square[n=3]", "train[n=10,model=svc]"]
    assert graph["tasks"]["later"]["depends_on"] == [
        "train[n=20,model=tree]",
        "side[data=a.csv,seed=#0]",
        "side[data=b.csv,seed=#1]",
    ]


def test_load_stages_maps_function_of_jobs_module(stages):
    """It is called with the values of each task."""
    path = stages("Lint: {map: {folder: [src, tests]}}\nTest: [Lint]")

    graph = load_workflow(path, jobs="jobs")

    assert [(task.name, task.function, task.kwargs) for task in graph.tasks.values()] == [
        ("Lint[folder=src]", "jobs:Lint", {"folder": "src"}),
        ("Lint[folder=tests]", "jobs:Lint", {"folder": "tests"}),
        ("Test", "jobs:Test", {}),
    ]
    assert graph.upstream["Test"] == ("Lint[folder=src]", "Lint[folder=tests]")


SEVERAL = """
jobs: jobs
defaults: {env: {LEVEL: 1, SHARED: "yes"}, run_on: slurm}
workflows:
  nightly:
    doc: Every night.
    defaults: {env: {LEVEL: 2}, workdir: data}
    stages:
      Lint: &lint {env: {OWN: x}}
      Test: [Lint]
  hourly:
    jobs: others
    stages:
      Lint: *lint
"""


def test_load_stages_supports_several_workflows(stages):
    """Each with stages of its own; defaults for all stand beside them, and those of a workflow override them."""
    path = stages(SEVERAL)

    nightly, hourly = load_workflow(path, "nightly"), load_workflow(path, "hourly")

    assert (nightly.name, nightly.doc, str(nightly.source)) == ("nightly", "Every night.", f"{path}:4:3")
    assert nightly.edges == [("Lint", "Test")]
    own = nightly.tasks["Lint"]
    assert (own.settings.env, own.run_on) == ({"LEVEL": "2", "SHARED": "yes", "OWN": "x"}, "slurm")
    assert own.settings.workdir == f"{path.parent}/data"
    assert [task.function for task in hourly.tasks.values()] == ["others:Lint"]
    assert hourly.tasks["Lint"].settings.env == {"LEVEL": "1", "SHARED": "yes", "OWN": "x"}


def test_load_stages_requires_name_with_several_workflows(stages):
    """As in a Python file; all their tasks can be selected, equal ones once."""
    path = stages(SEVERAL)

    with pytest.raises(SewerError, match=r"the file defines several workflows; choose one: 'nightly', 'hourly'$"):
        load_workflow(path)
    with pytest.raises(SewerError, match="unknown workflow 'nihgtly'; did you mean 'nightly'"):
        load_workflow(path, "nihgtly")
    assert [(task.name, task.target) for task in load_tasks(path)] == [
        ("Lint", "jobs:Lint"), ("Lint", "others:Lint"), ("Test", "jobs:Test")
    ]  # fmt: skip
    same = stages("workflows: {a: {stages: {Lint: &lint []}}, workflow: {stages: {Lint: *lint, Test: []}}}")
    assert [task.name for task in load_tasks(same, jobs="jobs")] == ["Lint", "Test"]
    assert load_workflow(same, jobs="jobs").name == "workflow"
