"""A workflow → the Airflow tasks of its group: all of them, or on a worker those that its task needs."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.values import Result
from airflow_provider_sewer.operators.operator_cloner import OperatorCloner
from airflow_provider_sewer.operators.workdir_warning import warn_without_workdir
from airflow_provider_sewer.task_group.dag_values import is_mapped, refuse_one_path_for_all
from airflow_provider_sewer.task_group.group import tie
from airflow_provider_sewer.task_group.group_cycles import check_group_cycles
from airflow_provider_sewer.task_group.join_tasks import JOIN, set_dependencies
from airflow_provider_sewer.task_group.lazy_tasks import (
    TaskFactory,
    builds_only_running_task,
    install_lazy_tasks,
    running_task,
)
from airflow_provider_sewer.task_group.operators import make_mapped_operator, make_operator
from airflow_provider_sewer.task_group.path_tasks import path_tasks
from airflow_provider_sewer.task_group.subgroups import Subgroups
from airflow_provider_sewer.task_group.wiring import UpstreamRefs, instances_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow.sdk import TaskGroup

    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.task_group.defaults import GroupDefaults
    from airflow_provider_sewer.task_group.group import Operator, SewerTaskGroup
    from airflow_provider_sewer.task_group.path_tasks import PathTask


def expand(
    loaded: Workflow, settled: Workflow, group: SewerTaskGroup, around: GroupDefaults, dag_folder: str
) -> dict[str, str]:
    """Make the Airflow tasks: one of each task, one of those that were mapped, and what edges and paths need besides.

    Where a worker parses the DAG file for one of them, only that one is made, and what is asked for. For whatever else
    runs, such as a branch of the DAG, all are made: it may look at what is after it. So they are for a
    ``task_converter``, which may count, or make a branch of a task.

    :param loaded: the workflow, as its file has it.
    :param settled: what of it is wanted, its edges known.
    :returns: the ids of the Airflow tasks, by the names of the tasks and of the mapped ones.
    """
    expansion = _Expansion(loaded, settled, group, around, dag_folder)
    running = running_task(group.dag)
    if running is None or around.task_converter is not None or not expansion.may_be_in_part(running):
        expansion.make_all()
    else:
        install_lazy_tasks(group.dag, expansion.groups, TaskFactory(expansion.make_by_id, expansion.make_rest))
        expansion.make_for(running)
    return expansion.ids_of_tasks()


class _Expansion:
    """The Airflow tasks of a group, as they are made."""

    def __init__(
        self, loaded: Workflow, settled: Workflow, group: SewerTaskGroup, around: GroupDefaults, dag_folder: str
    ) -> None:
        self._loaded = loaded
        self._settled = settled
        self._around = around
        self._dag_folder = dag_folder
        self._subgroups = Subgroups(group)
        is_in_instances = is_mapped(group)
        if is_in_instances:
            refuse_one_path_for_all(settled, group)
        self._parts = instances_of(settled, may_map=not is_in_instances)
        self._firsts = {part: name for name, part in reversed(self._parts.items())}
        self._groups = {part: settled.tasks[name].group for part, name in self._firsts.items()}
        self._own = {
            part: self._subgroups.new_id(part, self._groups[part]) for part in dict.fromkeys(self._parts.values())
        }
        self._ids = {part: self._subgroups.full_id(own, self._groups[part]) for part, own in self._own.items()}
        self._wiring = UpstreamRefs(settled, self._parts, self._ids, is_in_instances)
        self._twins = OperatorCloner()
        self._operators: dict[str, Operator] = {}
        self._path_operators: dict[str, Operator] = {}
        self._gates: list[str] = []
        self._is_whole = False
        self._under_way: set[str] = set()

    @property
    def groups(self) -> list[TaskGroup]:
        """Return the group of the workflow and the groups in it."""
        return self._subgroups.all()

    def ids_of_tasks(self) -> dict[str, str]:
        """Return the ids of the Airflow tasks, by the names of the tasks and of the mapped ones."""
        return {**self._ids, **{name: self._ids[part] for name, part in self._parts.items()}}

    def may_be_in_part(self, running: str) -> bool:
        """Tell whether a process that parses the DAG for a task can do without the others.

        :param running: its id; an empty one if it is a task of another DAG.
        """
        is_own = running in self._parts_by_id or running in self._path_tasks
        return not running or is_own or builds_only_running_task(self._subgroups.root.dag)

    def make_all(self) -> None:
        """Make everything that is not there yet, and the edges."""
        self._is_whole, dag = True, self._subgroups.root.dag
        for part in self._ids:
            self._make(part)
        without_gates = set(dag.task_dict)
        before: dict[str, dict[str, None]] = {}
        for down, ups in self._settled.upstream.items():
            before.setdefault(self._parts[down], {}).update(dict.fromkeys(map(self._parts.__getitem__, ups)))
        set_dependencies(before, self._operators, self._groups, self._subgroups)
        self._gates = [task_id for task_id in dag.task_dict if task_id not in without_gates]
        tasks = {part: self._settled.tasks[self._firsts[part]] for part in self._ids}
        check_group_cycles(before, tasks, self._subgroups)
        for task_id, path_task in self._path_tasks.items():
            made = self._make_path_task(task_id)
            for part in dict.fromkeys(self._parts[name] for name in path_task.consumers):
                user = self._operators[part]
                tie(made, user) if path_task.is_before else tie(user, made)

    def make_rest(self) -> list[str]:
        """Make all that there is not yet, from wherever it is asked for, and return the ids of all in their order."""
        if not self._is_whole:
            with self._in_dag(), self._subgroups.root:
                self.make_all()
        return [*self._parts_by_id, *self._gates, *self._path_tasks]

    def make_for(self, running: str) -> None:
        """Make what a running task needs: itself, and what is mapped over its result.

        There are no edges, for nobody schedules what a worker has parsed. Of a group that it is not in, one task is
        made, so that the group is not empty: to that, Airflow ties other tasks than to any other group.
        """
        self.make_by_id(running)
        own = [part for part, task_id in self._ids.items() if task_id == running]
        for name, mapped in self._settled.mapped.items():
            results = [each.task for each in mapped.values.values() if isinstance(each, Result)]
            if any(self._parts.get(self._settled.name_of(task) or "") in own for task in results):
                self.make_by_id(self._ids[name])
        if not self._under_way:
            self.make_by_id(next(iter(self._parts_by_id)))

    def make_by_id(self, task_id: str) -> None:
        """Make the Airflow task of this id, if it is one of these; while it is under way, it asks for itself."""
        if task_id in self._under_way or self._is_whole:
            return
        if task_id in self._parts_by_id:
            self._under_way.add(task_id)
            with self._in_dag():
                self._make(self._parts_by_id[task_id])
        elif task_id in self._path_tasks:
            self._under_way.add(task_id)
            for part in self._parts_around(self._path_tasks[task_id]):
                self.make_by_id(self._ids[part])
            with self._in_dag(), self._subgroups.root:
                self._make_path_task(task_id)
        elif task_id.startswith(self._subgroups.full_id("")) and task_id.rpartition(".")[2].startswith(JOIN):
            self.make_rest()  # whether there are gates is known when all else is there

    def _in_dag(self) -> AbstractContextManager[object]:
        dag = self._subgroups.root.dag
        return nullcontext() if DagContext.get_current() is dag else dag

    @cached_property
    def _parts_by_id(self) -> dict[str, str]:
        return {task_id: part for part, task_id in self._ids.items()}

    @cached_property
    def _path_tasks(self) -> dict[str, PathTask]:
        """Return the tasks that wait for paths and remove some, by the ids of their Airflow tasks."""
        deferrable, values = self._around.slurm.deferrable, self._around.values
        found = path_tasks(self._wiring, self._subgroups.new_id, deferrable=deferrable, values=values)
        return {self._subgroups.full_id(path_task.task_id): path_task for path_task in found}

    def _make_path_task(self, task_id: str) -> Operator:
        """Return an Airflow task that waits for a path or removes some, made if it is not there yet."""
        if task_id not in self._path_operators:
            path_task = self._path_tasks[task_id]
            operators = [self._operators[part] for part in self._parts_around(path_task)]
            self._path_operators[task_id] = path_task.make(operators)
        return self._path_operators[task_id]

    def _parts_around(self, path_task: PathTask) -> list[str]:
        """Return what makes and uses the path of a task, first where it runs."""
        return list(dict.fromkeys(self._parts[name] for name in (path_task.position, *path_task.consumers)))

    def _make(self, part: str) -> Operator:
        """Return an Airflow task, made if it is not there yet."""
        if part in self._operators:
            return self._operators[part]
        name = self._firsts[part]
        operator: Operator
        with self._subgroups.get_or_create(self._groups[part]):
            if mapped := self._settled.mapped.get(part):
                operator = make_mapped_operator(
                    mapped, self._loaded, self._own[part], self._around, self._dag_folder, self._wiring
                )
            else:
                operator = make_operator(
                    self._loaded.tasks[name], self._own[part], self._around, self._dag_folder, self._wiring, self._twins
                )
        if operator.task_id != self._ids[part]:
            said = f"task_converter: the operator has the id {operator.task_id!r}; keep the 'task_id'"
            raise InvalidTask(f"task {part!r}: {said}", self._settled.tasks[name].source)
        task = self._settled.tasks[name]
        warn_without_workdir(operator, [marker.path for marker in (*task.products, *task.dependencies)])
        self._operators[part] = operator
        return operator
