"""Train two models in parallel to read noisy handwriting, compare them, and draw the results of the better one.

The modules are those of the project in `dags/digits`: `pip install` it into its own environment, then
`sppe run -p dags/workflows/digits.py -i PYTHON`, with that environment's python, runs all of them.
Their output is in `build/digits`, below the working directory.
"""

from airflow_provider_sewer import Task, workflow

generate = Task(
    "generate",
    module="digits.generate",
    parameters_and_flags={"out": "build/digits/raw.npz", "copies": 4, "seed": 1},
    doc="Splits 1,797 real handwritten digits into halves, then augments the training half only.",
)

noise = Task(
    "add noise",
    module="digits.noise",
    parameters_and_flags={"in": "build/digits/raw.npz", "out": "build/digits/noisy.npz", "level": 0.15},
)

train_svc = Task(
    "train svc",
    module="digits.train",
    parameters_and_flags={"model": "svc", "in": "build/digits/noisy.npz", "out": "build/digits/svc.json"},
)

train_forest = Task(
    "train forest",
    module="digits.train",
    parameters_and_flags={
        "model": "forest",
        "in": "build/digits/noisy.npz",
        "out": "build/digits/forest.json",
        "verbose": True,
    },
)

compare = Task(
    "compare",
    module="digits.compare",
    parameters_and_flags={
        "results": ["build/digits/svc.json", "build/digits/forest.json"],
        "out": "build/digits/comparison.json",
    },
)

report = Task(
    "report",
    module="digits.report",
    parameters_and_flags={"in": "build/digits/comparison.json", "out": "build/digits/confusion.png"},
    doc="Draws the confusion matrix of the best model.",
)


@workflow
def digits():
    """Train two models on noisy digits, and report on the better one."""
    (generate >> noise >> [train_svc, train_forest] >> compare >> report).run()


if __name__ == "__main__":
    digits()
