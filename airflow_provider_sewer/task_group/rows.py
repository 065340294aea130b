"""What another task leaves, over which a task is mapped: each value is a row, with a task and paths of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.values import Result

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import XComArg

    from airflow_provider_sewer.core.loop import MappedTask
    from airflow_provider_sewer.core.paths import PathMarker
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.task_group.wiring import Wiring


class Rows:
    """The rows of a mapped task, each known once the task before it has run.

    :param mapped: the mapped task.
    :param wiring: knows the Airflow task whose result it is mapped over.
    :raises InvalidTask: when Airflow cannot map over what it is mapped over.
    """

    def __init__(self, mapped: MappedTask, wiring: Wiring) -> None:
        results = {key: value for key, value in mapped.values.items() if isinstance(value, Result)}
        ((self._key, self.result), *more) = results.items()
        if more or len(mapped.values) > 1:
            raise InvalidTask(
                "map: over a result and anything else at once is more than Airflow can do; map over one list"
            )
        if self.result.way:
            raise InvalidTask(f"map: Airflow maps over a whole result, not over a part as {self.result!r} is")
        maker = wiring.workflow.name_of(self.result.task)
        if maker is None:
            raise InvalidTask(f"map: {self.result!r} is the result of a task that is not run here")
        part = wiring.parts[maker]
        if part in wiring.workflow.mapped and wiring.workflow.mapped[part].is_known_beforehand:
            raise InvalidTask(f"map: Airflow maps over what all instances of {part!r} leave, not over {self.result!r}")
        self._mapped = mapped
        self._maker_id = wiring.ids[part]

    def tasks(self, run: Callable[[Task], Any]) -> XComArg:
        """Return what is made of the task of each row.

        :param run: makes it.
        """
        mapped, key = self._mapped, self._key

        def row(value: Any) -> Any:
            return run(mapped.task_of({key: value}))

        row.check = mapped.check_values  # type: ignore[attr-defined]  # for the task that leaves them
        return self._output.map(row)

    def paths(self, markers: Iterable[PathMarker]) -> XComArg:
        """Return a list of paths for each row."""
        mapped, key, several = self._mapped, self._key, list(markers)
        return self._output.map(lambda value: [mapped.marker_of(each, {key: value}).path for each in several])

    def path(self, marker: PathMarker) -> XComArg:
        """Return a path for each row."""
        mapped, key = self._mapped, self._key
        return self._output.map(lambda value: mapped.marker_of(marker, {key: value}).path)

    @property
    def _output(self) -> XComArg:
        dag: Any = DagContext.get_current()
        output: XComArg = dag.get_task(self._maker_id).output
        return output
