"""Tasks mapped over the result of an upstream task, with one instance per item.

An item is known only when its instance runs. A placeholder represents it, as for every run-time value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.definitions._internal.mixins import ResolveMixin

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.placeholders import Result
from airflow_provider_sewer.operators.xcom_references import Item

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow.sdk import XComArg

    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.paths import PathMarker
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.task_group.dag_values import DagValues
    from airflow_provider_sewer.task_group.wiring import UpstreamRefs


class ResultExpansion:
    """Expansion of a mapped task over the items of an upstream result.

    :param mapped: the mapped task.
    :param refs: resolves the upstream Airflow task.
    :param values: run-time values of the DAG.
    :raises InvalidTask: when Airflow cannot map over these values.
    """

    def __init__(self, mapped: MappedTask, refs: UpstreamRefs, values: DagValues) -> None:
        results = {key: value for key, value in mapped.values.items() if isinstance(value, Result)}
        ((key, result), *more) = results.items()
        if more or len(mapped.values) > 1:
            raise InvalidTask("map: Airflow cannot map over a result together with other values; map over one list")
        if result.key_path:
            raise InvalidTask(f"map: Airflow maps over a whole result only, got the part {result!r}")
        producer = refs.workflow.name_of(result.task)
        if producer is None:
            raise InvalidTask(f"map: {result!r} is the result of a task that is not part of the workflow")
        node = refs.node_of[producer]
        if node in refs.workflow.mapped and refs.workflow.mapped[node].is_known_beforehand:
            raise InvalidTask(f"map: Airflow maps over the results of all instances of {node!r}, not over {result!r}")
        self._mapped = mapped
        self._producer_id = refs.ids[node]
        self.values, placeholder = values.including(key, Item())
        self._row = {key: placeholder}
        self._name = placeholder.stands_for

    def task(self) -> Task:
        """Return the task of all instances, with a placeholder for the item."""
        return self._mapped.task_of(self._row)

    def instances(self) -> XComArg:
        """Return the arguments of each instance."""

        def instance(item: Any) -> dict[str, Any]:
            return {"item": item}

        instance.check = self._mapped.check_values  # type: ignore[attr-defined]  # called by the upstream task
        return self._output.map(instance)

    def path(self, marker: PathMarker) -> str:
        """Return the path of a product or dependency as a template."""
        return self._mapped.marker_of(marker, self._row).path

    def paths(self, markers: Iterable[PathMarker]) -> ResolveMixin:
        """Return the paths of all instances."""
        return _PathsOfAll(self._output, self._name, [self.path(each) for each in markers])

    @property
    def _output(self) -> XComArg:
        dag: Any = DagContext.get_current()
        output: XComArg = dag.get_task(self._producer_id).output
        return output


class _PathsOfAll(ResolveMixin):
    """Reference to the paths of all instances of a mapped task.

    :param items: the items it is mapped over.
    :param name: the template variable of an item.
    :param paths: the path templates of one instance.
    """

    def __init__(self, items: XComArg, name: str, paths: list[str]) -> None:
        self._items = items
        self._name = name
        self._paths = paths

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        yield from self._items.iter_references()

    def resolve(self, context: Any) -> list[str]:
        task = context["task"]
        arguments, paths = task.arguments, []
        for item in self._items.resolve(context):
            task.arguments = {**(arguments or {}), self._name: item}
            paths += task.render_template(self._paths, context)
        task.arguments = arguments
        return paths

    def __repr__(self) -> str:
        return f"{self._paths!r} for each of {self._items!r}"
