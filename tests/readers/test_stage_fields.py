"""Stages in YAML can say all that a Python file can."""

from __future__ import annotations

from airflow_provider_sewer import Dependency, External, Ignored, Product, load_workflow

from .stage_cases import EVERYTHING


def test_all_that_a_python_file_says_can_be_said(write, tmp_path):
    """The same tasks, field by field, whichever file they are written in."""
    write("def noise(): ...\ndef train(): ...", "jobs.py", imports="")
    python = write("""
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
            },
            env={"LEVEL": 2, "SHARED": "yes"}, workdir="data", inherit_env=["CUDA_HOME"],
            slurm={"partition": "gpu", "mem_gb": 8}, **around,
        )
        train = Task(
            "train", function="jobs:train", depends_on="noise model", workdir=".",
            dependencies=[External("/data/labels.csv", timeout=60), "build/noisy.npz"], products="model.bin",
            run_when="stale", compare="content", stale_with=["code"], operator_kwargs={"retries": 2}, run_on="slurm",
            env={"LEVEL": 1, "SHARED": "yes"}, slurm={"partition": "gpu", "mem_gb": 16, "time": "1:30:00"}, **around,
        )
    """, imports="")  # fmt: skip
    stages = write(EVERYTHING, "stages.yaml", imports="")

    graph, expected = load_workflow(stages), load_workflow(python)

    assert (graph.name, graph.doc) == ("digits", "From noise to numbers.")
    assert graph.why.reasons == expected.why.reasons
    for name, task in graph.tasks.items():
        said = {field: getattr(task, field) for field in vars(task) if field not in ("source", "identity")}
        other = expected.tasks[name]
        assert said == {field: getattr(other, field) for field in said}
        assert [vars(product) for product in task.products] == [vars(product) for product in other.products]
        assert task.parameters_and_flags.get("threads", Ignored(4)).value == 4
