"""References that Airflow resolves at run time: results of other tasks, and the item of a mapped instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_sewer.core.errors import InvalidTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_sewer.core.placeholders import Result


class FromXCom(ResolveMixin):
    """Reference to another Airflow task's result, or to a value in it.

    :param result: the placeholder in the workflow file, with the keys of the value.
    :param task_id: the id of the Airflow task.
    :param map_index: the instance of a mapped task; ``"own"`` is the same instance of a mapped group, ``"all"`` the
        list of all instances' results.
    """

    def __init__(self, result: Result, task_id: str, map_index: int | str | None = None) -> None:
        self.result = result
        self.task_id = task_id
        self.map_index = map_index

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        """Return nothing, as the edges of a workflow are created with its tasks."""
        return iter(())

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value.

        :raises AirflowFailException: if the result has no such key.
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
    """Reference to the ``item`` of a mapped instance."""

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        """Return nothing, as the expand input creates the edge."""
        return iter(())

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """Return the value."""
        return context["task"].item

    def __repr__(self) -> str:
        return "Item()"


def is_reference(value: Any) -> bool:
    """Return whether Airflow resolves the value at run time: an XComArg, a DAG parameter, a literal."""
    return callable(getattr(value, "iter_references", None)) and callable(getattr(value, "resolve", None))
