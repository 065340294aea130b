"""A DAG whose workers create only the tasks they need, and record them.

It has all that one Airflow task of a workflow can know of another: results, also those that others are mapped over,
paths, a teardown, another try, a job.
"""

from __future__ import annotations

STEPS = """
import argparse
import os


def numbers():
    return [1, 2, 3]


def double(n):
    return 2 * n


def total(of, known):
    assert [sorted(of), known] == [[2, 4, 6], [20, 40]], (of, known)
    return sum(of)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--write")
    parser.add_argument("--read")
    parser.add_argument("--fail-once")
    given = parser.parse_args()
    if given.write:
        open(given.write, "w").write("written")
    if given.read:
        print(open(given.read).read())
    if given.fail_once and not os.path.exists(given.fail_once):
        open(given.fail_once, "w").close()
        raise SystemExit(1)
"""

FLOW = """
from airflow_provider_sewer import Dependency, Product, Task

made = Task("made", "steps", {"write": Product("made.txt", temporary=True)})
used = Task("used", "steps", {"read": Dependency("made.txt")}, run_on="slurm")
again = Task("again", "steps", {"fail_once": "failed"}, depends_on=used, operator_kwargs={"retries": 1})
numbers = Task("numbers", function="steps:numbers")
over = Task("over", function="steps:double").map(n=numbers.result)
known = Task("known", function="steps:double").map(n=[10, 20])
total = Task("total", function="steps:total", kwargs={"of": over.result, "known": known.result})
clear = Task("clear", "steps", depends_on=[again, total])
"""

DAG = """
import os, sys
from datetime import timedelta
from airflow.sdk import DAG, get_parsing_context, task
from airflow_provider_sewer.task_group import sewer_task_group

here = os.path.dirname(__file__)
with DAG("on_demand", schedule=None, default_args={"retry_delay": timedelta(seconds=0)}) as dag:
    group = sewer_task_group(
        "flow.py", group_id="g", python=sys.executable, workdir=f"{here}/work", env={"PYTHONPATH": here},
        cluster="local", run_dir=f"{here}/runs", deferrable=False,
    )
    group["clear"].as_teardown(setups=group["made"])

    @task
    def beside(value):
        return value + 1

    group >> beside(group["total"].output)
if running := get_parsing_context().task_id:
    with open(f"{here}/made.log", "a") as log:
        print(running, *sorted(dict.keys(dag.task_dict)), file=log)  # the existing tasks: iterating would create all
"""

#: Tasks that the worker of each task creates, besides the two that the DAG file asks for and the one beside the group.
ALSO_MADE = {
    "g.made": [],
    "g.used": [],
    "g.again": [],
    "g.numbers": ["g.over"],
    "g.over": ["g.numbers"],
    "g.known": [],
    "g.total": [],
    "g.clear": [],
    "g.remove_made_txt": ["g.used"],
    "beside": ["g.again", "g.known", "g.numbers", "g.over", "g.remove_made_txt", "g.used"],
}
ASKED_FOR = ["beside", "g.clear", "g.made", "g.total"]
