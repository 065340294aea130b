"""Creation of a group's Airflow tasks: all of them, or on a worker only those that the running task needs.

A *node* is an Airflow task of the workflow: a task, or the mapped task of several tasks.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING

from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.placeholders import Result
from airflow_provider_sewer.operators.operator_cloner import OperatorCloner
from airflow_provider_sewer.operators.workdir_warning import warn_without_workdir
from airflow_provider_sewer.task_group.group import set_edge
from airflow_provider_sewer.task_group.group_cycles import check_group_cycles
from airflow_provider_sewer.task_group.join_tasks import JOIN, set_dependencies
from airflow_provider_sewer.task_group.lazy_tasks import (
    TaskFactory,
    builds_only_running_task,
    install_lazy_tasks,
    running_task,
)
from airflow_provider_sewer.task_group.mapped_group import is_mapped, reject_shared_product_paths
from airflow_provider_sewer.task_group.operator_creation import make_mapped_operator, make_operator
from airflow_provider_sewer.task_group.path_tasks import path_tasks
from airflow_provider_sewer.task_group.shared_fields import SharedFields
from airflow_provider_sewer.task_group.subgroups import Subgroups
from airflow_provider_sewer.task_group.wiring import UpstreamRefs, instances_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow.sdk import TaskGroup

    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.task_group.group import Operator, SewerTaskGroup
    from airflow_provider_sewer.task_group.group_defaults import GroupDefaults
    from airflow_provider_sewer.task_group.path_tasks import PathTask


def expand(
    loaded: Workflow, selection: Workflow, group: SewerTaskGroup, defaults: GroupDefaults, dag_folder: str
) -> dict[str, str]:
    """Create the Airflow tasks of a workflow, including join tasks, sensors and tasks that remove products.

    If a worker parses the DAG file to run one of them, only this task is created, and others on lookup. All are
    created if another task of the DAG runs, such as a branch, because it may access its downstream tasks. All are
    also created for a ``task_converter``, because it may count tasks, or return a branch operator.

    :param loaded: the workflow as loaded from its file.
    :param selection: the selected tasks, with their edges.
    :returns: the Airflow task ids by the names of tasks and of mapped tasks.
    """
    expansion = _Expansion(loaded, selection, group, defaults, dag_folder)
    running = running_task(group.dag)
    if running is None or defaults.task_converter is not None or not expansion.may_be_partial(running):
        expansion.make_all()
    else:
        install_lazy_tasks(group.dag, expansion.groups, TaskFactory(expansion.make_by_id, expansion.make_rest))
        expansion.make_for(running)
    return expansion.ids_of_tasks()


class _Expansion:
    """Creates the Airflow tasks of a group."""

    def __init__(
        self, loaded: Workflow, selection: Workflow, group: SewerTaskGroup, defaults: GroupDefaults, dag_folder: str
    ) -> None:
        self._loaded = loaded
        self._selection = selection
        self._defaults = defaults
        self._shared = SharedFields(defaults, dag_folder)
        self._subgroups = Subgroups(group)
        is_in_instances = is_mapped(group)
        if is_in_instances:
            reject_shared_product_paths(selection, group)
        self._node_of = instances_of(selection, may_map=not is_in_instances)
        self._firsts = {node: name for name, node in reversed(self._node_of.items())}
        self._groups = {node: selection.tasks[name].group for node, name in self._firsts.items()}
        self._own_ids = {
            node: self._subgroups.new_id(node, self._groups[node]) for node in dict.fromkeys(self._node_of.values())
        }
        self._ids = {node: self._subgroups.full_id(own, self._groups[node]) for node, own in self._own_ids.items()}
        self._refs = UpstreamRefs(selection, self._node_of, self._ids, is_in_instances)
        self._cloner = OperatorCloner()
        self._operators: dict[str, Operator] = {}
        self._path_operators: dict[str, Operator] = {}
        self._join_ids: list[str] = []
        self._is_complete = False
        self._started: set[str] = set()

    @property
    def groups(self) -> list[TaskGroup]:
        """Return the workflow's group and its subgroups."""
        return self._subgroups.all()

    def ids_of_tasks(self) -> dict[str, str]:
        """Return the Airflow task ids by the names of tasks and of mapped tasks."""
        return {**self._ids, **{name: self._ids[node] for name, node in self._node_of.items()}}

    def may_be_partial(self, running: str) -> bool:
        """Return whether the running task needs only some tasks of this group.

        :param running: its id; empty if it belongs to another DAG.
        """
        is_own = running in self._nodes_by_id or running in self._path_tasks
        return not running or is_own or builds_only_running_task(self._subgroups.root.dag)

    def make_all(self) -> None:
        """Create all missing tasks, and the edges."""
        self._is_complete, dag = True, self._subgroups.root.dag
        for node in self._ids:
            self._make(node)
        without_joins = set(dag.task_dict)
        before: dict[str, dict[str, None]] = {}
        for down, ups in self._selection.upstream.items():
            before.setdefault(self._node_of[down], {}).update(dict.fromkeys(map(self._node_of.__getitem__, ups)))
        set_dependencies(before, self._operators, self._groups, self._subgroups)
        self._join_ids = [task_id for task_id in dag.task_dict if task_id not in without_joins]
        tasks = {node: self._selection.tasks[self._firsts[node]] for node in self._ids}
        check_group_cycles(before, tasks, self._subgroups)
        for task_id, path_task in self._path_tasks.items():
            operator = self._make_path_task(task_id)
            for node in dict.fromkeys(self._node_of[name] for name in path_task.consumers):
                consumer = self._operators[node]
                set_edge(operator, consumer) if path_task.is_before else set_edge(consumer, operator)

    def make_rest(self) -> list[str]:
        """Create all missing tasks, from any context, and return all ids in order."""
        if not self._is_complete:
            with self._in_dag(), self._subgroups.root:
                self.make_all()
        return [*self._nodes_by_id, *self._join_ids, *self._path_tasks]

    def make_for(self, running: str) -> None:
        """Create the running task, and the tasks mapped over its result.

        No edges are set, because a DAG parsed by a worker is not scheduled. If the running task is in another group,
        one task is created here, because Airflow sets other dependencies for an empty group.
        """
        self.make_by_id(running)
        own = [node for node, task_id in self._ids.items() if task_id == running]
        for name, mapped in self._selection.mapped.items():
            results = [each.task for each in mapped.values.values() if isinstance(each, Result)]
            if any(self._node_of.get(self._selection.name_of(task) or "") in own for task in results):
                self.make_by_id(self._ids[name])
        if not self._started:
            self.make_by_id(next(iter(self._nodes_by_id)))

    def make_by_id(self, task_id: str) -> None:
        """Create the Airflow task of an id, if it belongs to this group.

        A task looks itself up while it is being created; such a call returns at once.
        """
        if task_id in self._started or self._is_complete:
            return
        if task_id in self._nodes_by_id:
            self._started.add(task_id)
            with self._in_dag():
                self._make(self._nodes_by_id[task_id])
        elif task_id in self._path_tasks:
            self._started.add(task_id)
            for node in self._nodes_using(self._path_tasks[task_id]):
                self.make_by_id(self._ids[node])
            with self._in_dag(), self._subgroups.root:
                self._make_path_task(task_id)
        elif task_id.startswith(self._subgroups.full_id("")) and task_id.rpartition(".")[2].startswith(JOIN):
            self.make_rest()  # join tasks are known only when all other tasks exist

    def _in_dag(self) -> AbstractContextManager[object]:
        dag = self._subgroups.root.dag
        return nullcontext() if DagContext.get_current() is dag else dag

    @cached_property
    def _nodes_by_id(self) -> dict[str, str]:
        return {task_id: node for node, task_id in self._ids.items()}

    @cached_property
    def _path_tasks(self) -> dict[str, PathTask]:
        """Return the path tasks by Airflow task id."""
        deferrable, values = self._defaults.slurm.deferrable, self._defaults.values
        found = path_tasks(self._refs, self._subgroups.new_id, deferrable=deferrable, values=values)
        return {self._subgroups.full_id(path_task.task_id): path_task for path_task in found}

    def _make_path_task(self, task_id: str) -> Operator:
        """Return the Airflow task of a path task; create it on the first call."""
        if task_id not in self._path_operators:
            path_task = self._path_tasks[task_id]
            operators = [self._operators[node] for node in self._nodes_using(path_task)]
            self._path_operators[task_id] = path_task.make(operators)
        return self._path_operators[task_id]

    def _nodes_using(self, path_task: PathTask) -> list[str]:
        """Return the nodes that use a path; the first one determines where the path task runs."""
        return list(dict.fromkeys(self._node_of[name] for name in (path_task.position, *path_task.consumers)))

    def _make(self, node: str) -> Operator:
        """Return the Airflow task of a node; create it on the first call."""
        if node in self._operators:
            return self._operators[node]
        name = self._firsts[node]
        operator: Operator
        with self._subgroups.get_or_create(self._groups[node]):
            if mapped := self._selection.mapped.get(node):
                operator = make_mapped_operator(mapped, self._loaded, self._own_ids[node], self._shared, self._refs)
            else:
                operator = make_operator(
                    self._loaded.tasks[name], self._own_ids[node], self._shared, self._refs, self._cloner
                )
        if operator.task_id != self._ids[node]:
            message = f"task_converter must keep task_id {self._ids[node]!r}, got {operator.task_id!r}"
            raise InvalidTask(f"task {node!r}: {message}", self._selection.tasks[name].source)
        task = self._selection.tasks[name]
        if paths := [marker.path for marker in (*task.products, *task.dependencies)]:
            warn_without_workdir(operator, paths)
        self._operators[node] = operator
        return operator
