"""Print the tasks and edges of every DAG in a folder as JSON: ``python graphs.py DAGS``. It takes Airflow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: str) -> None:
    """Load the folder as the DAG processor does, and print ``{file: {dag_id: {task_id: task}}}``."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=folder, bundle_path=Path(folder), bundle_name="dags-folder")
    if bag.import_errors:
        raise SystemExit(f"errors in DAG files: {bag.import_errors}")
    graphs: dict[str, Any] = {}
    for _, dag in sorted(bag.dags.items()):
        tasks = {task.task_id: described(task) for task in dag.tasks}
        graphs.setdefault(Path(dag.fileloc).name, {})[dag.dag_id] = tasks
    json.dump(graphs, sys.stdout)


def described(task: Any) -> dict[str, Any]:
    """Return the label, the kind and the upstream tasks of an Airflow task."""
    operator = getattr(task, "operator_class", type(task))
    kinds = {base.__name__ for base in operator.__mro__}
    kind = "slurm" if "SlurmModuleOperator" in kinds else "module" if "PythonModuleOperator" in kinds else "airflow"
    mapped = task.is_mapped or any(hasattr(group, "_expand_input") for group in task.iter_mapped_task_groups())
    return {
        "label": task.label if task.task_display_name == task.task_id else task.task_display_name,
        "kind": kind,
        "mapped": bool(mapped),
        "upstream": sorted(task.upstream_task_ids),
    }


if __name__ == "__main__":
    main(sys.argv[1])
