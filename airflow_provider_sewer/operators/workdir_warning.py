"""Parse-time warning for relative paths that each worker may resolve from another folder."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from airflow_provider_sewer.core.paths import is_relative

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator


class OncePerDag:
    """Predicate that is true for the first call with a DAG."""

    def __init__(self) -> None:
        #: Keyed by object id: the hash of a DAG changes with each task.
        self._dags: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def __call__(self, dag: Any) -> bool:
        """Return whether this is the first call for a DAG; ``None`` is not a DAG."""
        if dag is None or self._dags.get(id(dag)) is dag:
            return False
        self._dags[id(dag)] = dag
        return True


_is_first_of = OncePerDag()


def warn_without_workdir(operator: BaseOperator | MappedOperator, paths: Iterable[Any]) -> None:
    """Warn of the first relative path of an operator with neither workdir nor connection, once per DAG.

    :param operator: the operator.
    :param paths: paths of its products and dependencies; a template that may render to an absolute path is ignored.
    """
    given: Mapping[str, Any] = getattr(operator, "partial_kwargs", None) or vars(operator)
    if given.get("workdir") is not None or given.get("sewer_conn_id") is not None or not operator.has_dag():
        return
    dag: Any = operator.dag
    relative = next((path for path in paths if _is_certainly_relative(path)), None)
    if relative is None or not _is_first_of(dag):
        return
    warnings.warn_explicit(
        f"task {operator.task_id!r}: workdir is not given, so the relative path {relative!r} is resolved from the "
        "working directory of each worker or job; set workdir in the task group, the task or its connection",
        UserWarning,
        dag.fileloc,
        line_in(dag.fileloc),
    )


def _is_certainly_relative(path: Any) -> bool:
    return isinstance(path, str) and is_relative(path) and not path.startswith(("{{", "{%"))


def line_in(file: str) -> int:
    """Return the line of a file in the current call stack."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename != file:
        frame = frame.f_back
    return frame.f_lineno
