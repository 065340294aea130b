"""The last word on an operator, which a DAG file can have by a function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.values import deep_copy_plain

if TYPE_CHECKING:
    from airflow_provider_sewer.core.task import Task

#: Takes a task and the arguments of its operator, and returns arguments, or an operator that it has made.
TaskConverter: TypeAlias = "Callable[[Task, dict[str, Any]], Mapping[str, Any] | BaseOperator | OperatorPartial]"


def convert(
    task: Task, kind: type[BaseOperator], arguments: Mapping[str, Any], converter: TaskConverter | None
) -> BaseOperator:
    """Make an operator, as the function says if there is one.

    :raises InvalidTask: when the function fails, or returns something else.
    """
    given = _checked_arguments(task, arguments, converter)
    if isinstance(given, Mapping):
        return kind(**given)
    if not isinstance(given, BaseOperator):
        raise InvalidTask(f"task_converter: it has to return operator arguments or an operator, not {given!r:.200}")
    return given


def convert_partial(
    task: Task, kind: type[BaseOperator], arguments: Mapping[str, Any], converter: TaskConverter | None
) -> OperatorPartial:
    """Make what becomes a mapped operator, as the function says if there is one.

    :raises InvalidTask: when the function fails, or returns something else.
    """
    given = _checked_arguments(task, arguments, converter)
    if isinstance(given, Mapping):
        return kind.partial(**given)
    if not isinstance(given, OperatorPartial):
        raise InvalidTask(
            "task_converter: for a mapped task it has to return operator arguments or Operator.partial(…), "
            f"not {given!r:.200}"
        )
    return given


def _checked_arguments(task: Task, arguments: Mapping[str, Any], converter: TaskConverter | None) -> Any:
    if converter is None:
        return arguments
    try:
        return converter(_own(task), dict(arguments))
    except Exception as error:
        raise InvalidTask(f"task_converter: {type(error).__name__}: {error}") from error


def _own(task: Task) -> Task:
    """Return a copy that can be changed: the task itself may be that of other groups as well."""
    own = copy.copy(task)
    vars(own).update(deep_copy_plain(vars(task)))
    return own
