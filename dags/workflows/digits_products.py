"""The handwritten digits, with edges derived from the products and dependencies of the tasks.

A second run produces only stale files. A module writes its products to a staging directory; they are committed when
the module has succeeded.
"""

from airflow_provider_sewer import Dependency, Product, Task

FOLDER = "build/products"

generate = Task(
    "generate",
    module="digits.generate",
    parameters_and_flags={"out": Product(f"{FOLDER}/raw.npz"), "copies": 2, "seed": 1},
    run_when="stale",
)

noise = Task(
    "add noise",
    module="digits.noise",
    parameters_and_flags={"in": Dependency(f"{FOLDER}/raw.npz"), "out": Product(f"{FOLDER}/noisy.npz", temporary=True)},
    run_when="stale",
    compare="content",
)


def train(model):
    """Return the task that trains a model."""
    parameters = {
        "model": model,
        "in": Dependency(f"{FOLDER}/noisy.npz"),
        "out": Product(f"{FOLDER}/{model}.json"),
    }
    return Task(
        f"train {model}",
        module="digits.train",
        parameters_and_flags=parameters,
        run_when="stale",
        compare="content",
        resources={"cpu": 1},
    )


models = [train("svc"), train("forest")]

compare = Task(
    "compare",
    module="digits.compare",
    parameters_and_flags={
        "results": [Dependency(f"{FOLDER}/svc.json"), Dependency(f"{FOLDER}/forest.json")],
        "out": Product(f"{FOLDER}/comparison.json"),
    },
    run_when="stale",
    compare="content",
)
