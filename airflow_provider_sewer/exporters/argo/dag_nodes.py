"""Nodes of an Argo DAG: a task each, or a loop for the instances of a mapped task."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.placeholders import Result
from airflow_provider_sewer.exporters.argo.argo_names import Names
from airflow_provider_sewer.exporters.argo.pod_files import mapped_product
from airflow_provider_sewer.exporters.argo.task_values import Reference

if TYPE_CHECKING:
    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow


class Node(NamedTuple):
    """Node of an Argo DAG.

    :param name: its name there.
    :param tasks: its task, or the instances of a loop over values that are known.
    :param upstream: names of the nodes before it.
    :param is_loop: whether it is a loop over values that are known.
    :param mapped_over: for a task that is mapped over a result, that result.
    """

    name: str
    tasks: tuple[Task, ...]
    upstream: tuple[str, ...]
    is_loop: bool = False
    mapped_over: Result | None = None

    @property
    def task_name(self) -> str:
        """Return the name of its task, or of the mapped task."""
        mapped = self.tasks[0].mapped_task
        return mapped.name if mapped is not None and self.is_loop else self.tasks[0].name

    @property
    def mapped_key(self) -> str:
        """Return the parameter that is mapped over a result; empty for none."""
        mapped = self.tasks[0].mapped_task
        return next(iter(mapped.values)) if mapped is not None and self.mapped_over is not None else ""


class Nodes:
    """Nodes of a workflow, in its order.

    :param workflow: the workflow.
    :param has_artifacts: whether files are artifacts, which Argo cannot pass out of a loop.
    :raises InvalidTask: when Argo cannot pass the files of a mapped task.
    """

    def __init__(self, workflow: Workflow, *, has_artifacts: bool) -> None:
        self._workflow = workflow
        self._names = Names()
        loops = [mapped for mapped in workflow.mapped.values() if _is_loop(workflow, mapped, has_artifacts)]
        try:
            self.all = self._made(loops)
        except CycleError:  # an instance comes before a task, and another one after it
            self.all = self._made([])
        self._places = {task.name: (node, index) for node in self.all.values() for index, task in enumerate(node.tasks)}
        if has_artifacts:
            self._reject_mapped_artifacts()

    def _made(self, loops: list[MappedTask]) -> dict[str, Node]:
        loop_of = {task.name: mapped for mapped in loops for task in mapped}
        owner = {name: loop_of[name].name if name in loop_of else name for name in self._workflow.tasks}
        members: dict[str, list[Task]] = {}
        upstream: dict[str, dict[str, None]] = {}
        for name, task in self._workflow.tasks.items():
            members.setdefault(owner[name], []).append(task)
            upstream.setdefault(owner[name], {}).update(
                dict.fromkeys(owner[up] for up in self._workflow.upstream[name])
            )
        tuple(TopologicalSorter(upstream).static_order())
        names = {mapped.name for mapped in loops}
        nodes = {}
        for name, tasks in members.items():
            ups = tuple(self._names.of(up) for up in upstream[name])
            node = Node(self._names.of(name), tuple(tasks), ups, name in names, _mapped_over(tasks[0]))
            nodes[node.name] = node
        return nodes

    def refer(self, result: Result) -> Reference:
        """Return the place of a result."""
        name = self._workflow.name_of(result.task)
        node, index = self._places[name or result.task.name]
        if node.is_loop:
            return Reference(node.name, (index, *result.key_path), is_loop=True)
        return Reference(node.name, result.key_path, is_loop=node.mapped_over is not None)

    def items(self, node: Node, result: Result) -> tuple[Node, Result]:
        """Return the node that gives the positions of a mapped task's values, and the result with these values.

        A task that is mapped over the results of another one has as many instances as that.

        :param node: the node of the mapped task.
        :param result: the result over which it is mapped.
        :raises InvalidTask: when Argo cannot count the values.
        """
        reference = self.refer(result)
        producer = self.all[reference.task]
        if producer.mapped_over is not None and not reference.path:
            return self.items(producer, producer.mapped_over)
        if reference.is_loop:
            task = node.tasks[0]
            raise InvalidTask(
                f"task {task.name!r}: map must take a whole result for Argo, got {result!r}, part of a loop's results",
                task.source,
                at=("map",),
            )
        return producer, result

    def _reject_mapped_artifacts(self) -> None:
        for node in self.all.values():
            if (path := mapped_product(node.tasks[0])) is not None:
                task = node.tasks[0]
                raise InvalidTask(
                    f"task {task.name!r}: products and dependencies must not be mapped over a result for Argo, got "
                    f"{path!r}; pass --volume-claim",
                    task.source,
                    at=("products",),
                )


def _mapped_over(task: Task) -> Result | None:
    mapped = task.mapped_task
    values = () if mapped is None else mapped.values.values()
    return next((value for value in values if isinstance(value, Result)), None)


def _is_loop(workflow: Workflow, mapped: MappedTask, has_artifacts: bool) -> bool:
    tasks = [workflow.tasks[task.name] for task in mapped.distinct]
    if not mapped.is_known_beforehand or len(tasks) < len(mapped):
        return False
    has_files = any(task.products or task.dependencies for task in tasks)
    return not (has_artifacts and has_files) and all(task.settings == tasks[0].settings for task in tasks)
