"""Two tasks and no workflow: DAGs pick single tasks (`dags/data_prep.py`, `dags/data_prep_secondary.py`)."""

from airflow_provider_sewer import Task

t1 = Task(
    "data_generation",
    module="digits.generate",
    parameters_and_flags={"out": "build/data_prep/raw.npz", "copies": 1},
)

t2 = Task(
    "data_noising",
    module="digits.noise",
    parameters_and_flags={"in": "build/data_prep/raw.npz", "out": "build/data_prep/noisy.npz"},
)
