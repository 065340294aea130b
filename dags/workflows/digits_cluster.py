"""The two models of `digits.py`, trained as jobs of a Slurm cluster.

The short preparation and comparison run on the worker. `sppe run` and the debugger run all tasks on this machine, and
so does Airflow without Slurm.
"""

from airflow_provider_sewer import Task, workflow

generate = Task(
    "generate",
    module="digits.generate",
    parameters_and_flags={"out": "build/cluster/raw.npz", "copies": 2, "seed": 1},
)

noise = Task(
    "add noise",
    module="digits.noise",
    parameters_and_flags={"in": "build/cluster/raw.npz", "out": "build/cluster/noisy.npz"},
)


def train(model, slurm):
    parameters = {
        "model": model,
        "in": "build/cluster/noisy.npz",
        "out": f"build/cluster/{model}.json",
    }
    return Task(f"train {model}", module="digits.train", parameters_and_flags=parameters, run_on="slurm", slurm=slurm)


train_svc = train("svc", {"cpus_per_task": 1, "mem_gb": 1, "timeout_min": 10})
train_forest = train("forest", {"cpus_per_task": 2, "mem_gb": 1, "timeout_min": 10})

compare = Task(
    "compare",
    module="digits.compare",
    parameters_and_flags={
        "results": ["build/cluster/svc.json", "build/cluster/forest.json"],
        "out": "build/cluster/comparison.json",
    },
)


@workflow
def digits_cluster():
    """Train two models on noisy digits as Slurm jobs, and compare them."""
    (generate >> noise >> [train_svc, train_forest] >> compare).run()


if __name__ == "__main__":
    digits_cluster()
