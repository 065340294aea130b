"""A task with a run-time result, and a workflow that takes it as argument."""

from __future__ import annotations

from airflow.sdk import task


@task
def give(value):
    return value


TRAIN = """
    @workflow
    def train(n, config=None, name="svc"):
        first = Task("first", "job", {"n": n, "nested": [{"n": n}], "verbose": True}, args=[n])
        second = Task("second", function="functions:give", kwargs={"n": n, "config": config, "text": f"{n}-{name}"})
        (first >> second).run()
"""
