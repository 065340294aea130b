"""What one Airflow task of a workflow knows of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.graph import EXPLICIT
from airflow_provider_sewer.operators.xcom_references import FromXCom

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.values import Result
    from airflow_provider_sewer.core.workflow import Workflow


def instances_of(workflow: Workflow, *, may_map: bool) -> dict[str, str]:
    """Return for each task what it is a part of in Airflow: a mapped task, or nothing but itself.

    :param may_map: whether there can be mapped tasks; Airflow knows none inside of a mapped group.
    :raises InvalidTask: when there is one that has to be mapped.
    """
    parts = {name: name for name in workflow.tasks}
    for mapped in workflow.mapped.values():
        if not may_map and mapped.is_known_beforehand:
            continue
        if not may_map:
            said = f"task {mapped.name!r} is mapped over a result, which Airflow does not do inside of a mapped group"
            raise InvalidTask(said, mapped.source)
        parts |= dict.fromkeys((task.name for task in mapped), mapped.name)
    return parts


class UpstreamRefs(NamedTuple):
    """What one Airflow task knows of others.

    :param workflow: the workflow, its edges known.
    :param parts: for each task, what it is a part of in Airflow.
    :param ids: the ids of these.
    :param is_in_instances: whether the group they are in is mapped: then each sees what the same instance leaves.
    """

    workflow: Workflow
    parts: Mapping[str, str]
    ids: Mapping[str, str]
    is_in_instances: bool

    def xcoms(self, task: Task) -> dict[Result, FromXCom]:
        """Return what stands for the results that a task takes from others."""
        makers = {result: self.workflow.name_of(result.task) for result in task.results}
        return {result: self._xcom(result, maker) for result, maker in makers.items() if maker is not None}

    def stale_after(self, name: str) -> list[str]:
        """Return the Airflow tasks whose running makes the products of a task stale, besides what its files show.

        Of a mapped one, ``id[3]`` is a single instance.
        """
        freshness, reasons = self.workflow.tasks[name].run_policy, self.workflow.edge_reasons.reasons[name]
        if freshness.run_when != "stale":
            return []
        ups = [up for up in reasons if freshness.compare == "mtime" or EXPLICIT in reasons[up]]
        parts: dict[str, list[str]] = {}
        for up in ups:
            parts.setdefault(self.parts[up], []).append(up)
        return [task_id for part, several in parts.items() for task_id in self._instances(part, several)]

    def _instances(self, part: str, names: Collection[str]) -> list[str]:
        """Return the Airflow task of a mapped task, or those of its instances that are meant if these are not all."""
        mapped = self.workflow.mapped.get(part)
        if mapped is None or len(names) == len(mapped.distinct):
            return [self.ids[part]]
        positions = {task.name: at for at, task in enumerate(mapped.distinct)}
        return [f"{self.ids[part]}[{positions[name]}]" for name in names]

    def _xcom(self, result: Result, maker: str) -> FromXCom:
        mapped = self.workflow.mapped.get(self.parts[maker])
        task_id = self.ids[self.parts[maker]]
        if self.is_in_instances:
            return FromXCom(result, task_id, "own")
        if mapped is None:
            return FromXCom(result, task_id)
        if not mapped.is_known_beforehand:
            return FromXCom(result, task_id, "all")
        return FromXCom(result, task_id, [task.name for task in mapped.distinct].index(maker))
