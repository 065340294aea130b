"""A workflow → all Airflow tasks of its group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from airflow.sdk import BaseOperator

from airflow_provider_sewer.task_group.identifiers import Identifiers
from airflow_provider_sewer.task_group.operators import make_mapped_operator, make_operator
from airflow_provider_sewer.task_group.path_tasks import add_path_tasks
from airflow_provider_sewer.task_group.wiring import Wiring, parts_of

if TYPE_CHECKING:
    from airflow.sdk import TaskGroup
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.task_group.around import Around

#: An Airflow task, or a mapped one.
Operator = Union[BaseOperator, "MappedOperator"]


def expand(loaded: Workflow, settled: Workflow, group: TaskGroup, around: Around, dag_folder: str) -> None:
    """Make the Airflow tasks: one of each task, one of those that were mapped, and what their paths need besides."""
    ids = Identifiers()
    parts = parts_of(settled)
    own = {part: ids.new(part) for part in dict.fromkeys(parts.values())}
    full = {part: group.child_id(task_id) for part, task_id in own.items()}  # type: ignore[no-untyped-call]
    wiring = Wiring(settled, parts, full)
    operators: dict[str, Operator] = {}
    for name, part in parts.items():
        if part in operators:
            continue
        if mapped := settled.mapped.get(part):
            operators[part] = make_mapped_operator(mapped, loaded, own[part], around, dag_folder, wiring)
        else:
            operators[part] = make_operator(loaded.tasks[name], own[part], around, dag_folder, wiring)
    for up, down in dict.fromkeys((parts[up], parts[down]) for up, down in settled.edges):
        operators[up].set_downstream(operators[down])
    of_tasks = {name: operators[part] for name, part in parts.items()}
    add_path_tasks(settled, of_tasks, ids.new, deferrable=around.slurm.deferrable)
