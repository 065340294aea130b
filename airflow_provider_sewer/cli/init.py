"""``sppe init``: a first workflow, and a DAG that expands it."""

from __future__ import annotations

import os

from airflow_provider_sewer.core.errors import SewerError

_FLOW = """\
\"\"\"First workflow. Run it with: sppe run flow.py\"\"\"

from airflow_provider_sewer import Dependency, Product, Task, workflow

numbers = Task("numbers", function="steps:write_numbers", kwargs={"path": Product("build/numbers.txt"), "count": 10})
total = Task("total", function="steps:add", kwargs={"path": Dependency("build/numbers.txt")})
report = Task("report", module="steps", parameters_and_flags={"total": total.result})


@workflow
def first():
    (numbers >> total >> report).run()
"""
_STEPS = """\
\"\"\"Functions and modules that the tasks run, in any Python environment; they need not know about workflows.\"\"\"

import argparse


def write_numbers(path, count):
    with open(path, "w") as file:
        file.writelines(f"{number}\\n" for number in range(count))


def add(path):
    with open(path) as file:
        return sum(map(int, file))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--total", type=int)
    print("The total is", parser.parse_args().total)
"""
_DAG = """\
\"\"\"DAG of the workflow. Its folder is a DAG folder of Airflow, or a part of one.\"\"\"

from airflow.sdk import DAG

from airflow_provider_sewer.task_group import sewer_task_group

with DAG("first", schedule=None):
    sewer_task_group("flow.py", workdir=".")
"""
_AIRFLOWIGNORE = """\
# Files that are not DAGs: Airflow does not import them.
flow.py
steps.py
build/
"""
FILES = {"flow.py": _FLOW, "steps.py": _STEPS, "dag.py": _DAG, ".airflowignore": _AIRFLOWIGNORE}


def write_first_workflow(folder: str) -> list[str]:
    """Write a first workflow into a folder and return the paths of its files.

    :raises SewerError: when one of the files exists, or cannot be written; existing files are never changed.
    """
    paths = {os.path.join(folder, name): text for name, text in FILES.items()}
    if existing := [path for path in paths if os.path.lexists(path)]:
        raise SewerError(
            f"{', '.join(existing)} exist{'s' * (len(existing) == 1)}; name another folder, such as: sppe init first"
        )
    try:
        os.makedirs(folder, exist_ok=True)
        for path, text in paths.items():
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise SewerError(f"cannot write {error.filename}: {error.strerror}") from None
    return list(paths)
