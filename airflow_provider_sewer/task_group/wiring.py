"""References of an Airflow task to its upstream tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.graph import EXPLICIT
from airflow_provider_sewer.operators.xcom_references import FromXCom

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_sewer.core.placeholders import Result
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow


def instances_of(workflow: Workflow, *, may_map: bool) -> dict[str, str]:
    """Return the node of each task: the name of its mapped Airflow task, or its own name.

    :param may_map: whether mapped tasks are possible; Airflow does not support them in a mapped group.
    :raises InvalidTask: when a task must be mapped but cannot be.
    """
    node_of = {name: name for name in workflow.tasks}
    for mapped in workflow.mapped.values():
        if not may_map and mapped.is_known_beforehand:
            continue
        if not may_map:
            message = f"task {mapped.name!r} is mapped over a result, which Airflow does not support in a mapped group"
            raise InvalidTask(message, mapped.source)
        node_of |= dict.fromkeys((task.name for task in mapped), mapped.name)
    return node_of


class UpstreamRefs(NamedTuple):
    """Resolves references from an operator to its upstream operators.

    :param workflow: the workflow with its edges.
    :param node_of: the node (Airflow task) of each task.
    :param ids: the Airflow task id of each node.
    :param is_in_instances: whether the group is mapped: then each task uses the results of its own group instance.
    """

    workflow: Workflow
    node_of: Mapping[str, str]
    ids: Mapping[str, str]
    is_in_instances: bool

    def xcoms(self, task: Task) -> dict[Result, FromXCom]:
        """Return the XCom references for the upstream results that a task uses."""
        producers = {result: self.workflow.name_of(result.task) for result in task.results}
        return {result: self._xcom(result, producer) for result, producer in producers.items() if producer is not None}

    def stale_after(self, name: str) -> list[str]:
        """Return the ids of Airflow tasks whose run makes a task's products stale, in addition to file changes.

        ``id[3]`` is a single instance of a mapped task.
        """
        policy, reasons = self.workflow.tasks[name].run_policy, self.workflow.edge_reasons.reasons[name]
        if policy.run_when != "stale":
            return []
        ups = [up for up in reasons if policy.compare == "mtime" or EXPLICIT in reasons[up]]
        by_node: dict[str, list[str]] = {}
        for up in ups:
            by_node.setdefault(self.node_of[up], []).append(up)
        return [task_id for node, names in by_node.items() for task_id in self._instances(node, names)]

    def _instances(self, node: str, names: Collection[str]) -> list[str]:
        """Return the id of a node, or the ids of the named instances if these are not all its instances."""
        mapped = self.workflow.mapped.get(node)
        if mapped is None or len(names) == len(mapped.distinct):
            return [self.ids[node]]
        positions = {task.name: at for at, task in enumerate(mapped.distinct)}
        return [f"{self.ids[node]}[{positions[name]}]" for name in names]

    def _xcom(self, result: Result, producer: str) -> FromXCom:
        mapped = self.workflow.mapped.get(self.node_of[producer])
        task_id = self.ids[self.node_of[producer]]
        if self.is_in_instances:
            return FromXCom(result, task_id, "own")
        if mapped is None:
            return FromXCom(result, task_id)
        if not mapped.is_known_beforehand:
            return FromXCom(result, task_id, "all")
        return FromXCom(result, task_id, [task.name for task in mapped.distinct].index(producer))
