"""A workflow → all Airflow tasks of its group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.operators.twins import Twins
from airflow_provider_sewer.task_group.gates import connect
from airflow_provider_sewer.task_group.operators import make_mapped_operator, make_operator
from airflow_provider_sewer.task_group.path_tasks import add_path_tasks
from airflow_provider_sewer.task_group.run_time import is_mapped, refuse_one_path_for_all
from airflow_provider_sewer.task_group.subgroups import Subgroups
from airflow_provider_sewer.task_group.wiring import Wiring, parts_of

if TYPE_CHECKING:
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.task_group.around import Around
    from airflow_provider_sewer.task_group.group import Operator, SewerTaskGroup


def expand(
    loaded: Workflow, settled: Workflow, group: SewerTaskGroup, around: Around, dag_folder: str
) -> dict[str, str]:
    """Make the Airflow tasks: one of each task, one of those that were mapped, and what edges and paths need besides.

    :param loaded: the workflow, as its file has it.
    :param settled: what of it is wanted, its edges known.
    :returns: the ids of the Airflow tasks, by the names of the tasks and of the mapped ones.
    """
    subgroups = Subgroups(group)
    if is_in_instances := is_mapped(group):
        refuse_one_path_for_all(settled, group)
    parts = parts_of(settled, may_map=not is_in_instances)
    groups = {part: settled.tasks[name].group for name, part in reversed(parts.items())}
    own = {part: subgroups.new_id(part, groups[part]) for part in dict.fromkeys(parts.values())}
    ids = {part: subgroups.full_id(task_id, groups[part]) for part, task_id in own.items()}
    wiring = Wiring(settled, parts, ids, is_in_instances)
    operators: dict[str, Operator] = {}
    twins = Twins()
    for name, part in parts.items():
        if part in operators:
            continue
        with subgroups.at(groups[part]):
            if mapped := settled.mapped.get(part):
                operators[part] = make_mapped_operator(mapped, loaded, own[part], around, dag_folder, wiring)
            else:
                operators[part] = make_operator(loaded.tasks[name], own[part], around, dag_folder, wiring, twins)
        if operators[part].task_id != ids[part]:
            said = f"task_converter: the operator has the id {operators[part].task_id!r}; keep the 'task_id'"
            raise InvalidTask(f"task {part!r}: {said}", settled.tasks[name].source)
    edges = dict.fromkeys((parts[up], parts[down]) for up, down in settled.edges)
    connect(edges, operators, subgroups.new_id)
    of_tasks = {name: operators[part] for name, part in parts.items()}
    add_path_tasks(wiring, of_tasks, subgroups.new_id, deferrable=around.slurm.deferrable, values=around.values)
    return {**ids, **{name: ids[part] for name, part in parts.items()}}
