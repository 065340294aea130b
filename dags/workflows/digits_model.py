"""Train one model on noisy digits: a workflow with the model's name as argument.

From the shell, with the python of an environment that has the modules of `dags/digits`, and the output of
`python -m digits.generate --out raw.npz`:

    sppe run -p dags/workflows/digits_model.py -i PYTHON --arg raw=raw.npz --arg model=svc
"""

from airflow_provider_sewer import Dependency, Product, Task, workflow


@workflow
def digits_model(raw, model, level=0.15, folder="build/models"):
    """Add noise to digits, and train a model to read them."""
    noisy = f"{folder}/{model}/noisy.npz"
    noise = Task(
        "add noise",
        module="digits.noise",
        parameters_and_flags={"in": Dependency(raw), "out": Product(noisy), "level": level},
    )
    train = Task(
        "train",
        module="digits.train",
        parameters_and_flags={
            "model": model,
            "in": Dependency(noisy),
            "out": Product(f"{folder}/{model}/result.json"),
        },
    )
    (noise >> train).run()
