"""Values that Airflow resolves when a task runs: results of other tasks, and the item of a mapped instance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_sewer.core.errors import InvalidTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.values import Result


class FromXCom(ResolveMixin):
    """A part of another Airflow task's result.

    :param result: the result as the workflow file has it, which knows the part.
    :param task_id: the id of the Airflow task.
    :param map_index: the instance of a mapped task; ``"own"`` is the same instance of a mapped group, ``"all"`` a list
        of what all instances leave.
    """

    def __init__(self, result: Result, task_id: str, map_index: int | str | None = None) -> None:
        self.result = result
        self.task_id = task_id
        self.map_index = map_index

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        """Return nothing: the edges of a workflow are made with its tasks."""
        return iter(())

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value.

        :raises AirflowFailException: when the result has no such part.
        """
        ti = context["ti"]
        if self.map_index == "all":
            value = list(ti.xcom_pull(task_ids=[self.task_id]))
        elif self.map_index is None:
            value = ti.xcom_pull(task_ids=self.task_id)
        else:
            index = ti.map_index if self.map_index == "own" else self.map_index
            value = ti.xcom_pull(task_ids=self.task_id, map_indexes=index)
        try:
            return self.result.resolve(value)
        except InvalidTask as error:
            raise AirflowFailException(error.message) from None

    def __repr__(self) -> str:
        at = "" if self.map_index is None else f", map_index={self.map_index!r}"
        return f"FromXCom({self.result!r}, {self.task_id!r}{at})"


class Item(ResolveMixin):
    """The item that an instance of a mapped task is for: its ``item``."""

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        """Return nothing: what the task is mapped over makes the edge."""
        return iter(())

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value."""
        return context["task"].item

    def __repr__(self) -> str:
        return "Item()"


def is_reference(value: Any) -> bool:
    """Tell whether Airflow resolves this later: an XComArg, a DAG's parameter, a literal."""
    return callable(getattr(value, "iter_references", None)) and callable(getattr(value, "resolve", None))
