"""What another task leaves, over which a task is mapped: each item of it makes an instance.

What is written in the workflow file is the same in all instances: an item is data, which stands in no text before the
instance runs. So a stand-in takes its place, as it does for all else that is known only at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.definitions._internal.mixins import ResolveMixin

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.values import Result
from airflow_provider_sewer.operators.xcom_references import Item

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import XComArg

    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.paths import PathMarker
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.task_group.dag_values import DagValues
    from airflow_provider_sewer.task_group.wiring import UpstreamRefs


class ResultExpansion:
    """The items that a task is mapped over, known once the task before it has run.

    :param mapped: the mapped task.
    :param wiring: knows the Airflow task whose result it is mapped over.
    :param values: what else is known only when the tasks run.
    :raises InvalidTask: when Airflow cannot map over what it is mapped over.
    """

    def __init__(self, mapped: MappedTask, wiring: UpstreamRefs, values: DagValues) -> None:
        results = {key: value for key, value in mapped.values.items() if isinstance(value, Result)}
        ((key, result), *more) = results.items()
        if more or len(mapped.values) > 1:
            raise InvalidTask(
                "map: over a result and anything else at once is more than Airflow can do; map over one list"
            )
        if result.key_path:
            raise InvalidTask(f"map: Airflow maps over a whole result, not over a part as {result!r} is")
        maker = wiring.workflow.name_of(result.task)
        if maker is None:
            raise InvalidTask(f"map: {result!r} is the result of a task that is not run here")
        part = wiring.parts[maker]
        if part in wiring.workflow.mapped and wiring.workflow.mapped[part].is_known_beforehand:
            raise InvalidTask(f"map: Airflow maps over what all instances of {part!r} leave, not over {result!r}")
        self._mapped = mapped
        self._producer_id = wiring.ids[part]
        self.values, stand_in = values.including(key, Item())
        self._row = {key: stand_in}
        self._name = stand_in.stands_for

    def task(self) -> Task:
        """Make the task that all instances run, a stand-in in place of the item."""
        return self._mapped.task_of(self._row)

    def instances(self) -> XComArg:
        """Return the arguments of each instance."""

        def instance(item: Any) -> dict[str, Any]:
            return {"item": item}

        instance.check = self._mapped.check_values  # type: ignore[attr-defined]  # for the task that leaves the items
        return self._output.map(instance)

    def path(self, marker: PathMarker) -> str:
        """Return a path of the task as a template."""
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
    """The paths of all instances of a mapped task.

    :param items: the items it is mapped over.
    :param name: the name by which the paths name an item.
    :param paths: the paths of one instance, which are templates.
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
