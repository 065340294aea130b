"""The model of a workflow: tasks, the edges between them, and the commands they stand for.

Needs nothing but the standard library, runs on Python 3.9 and later, and knows neither Airflow nor
Slurm: everything else in this package is built on it.
"""
