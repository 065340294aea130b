"""Conversion of operator arguments by a function of the DAG file."""

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

#: Function of a task and its operator arguments that returns arguments or an operator.
TaskConverter: TypeAlias = "Callable[[Task, dict[str, Any]], Mapping[str, Any] | BaseOperator | OperatorPartial]"


def convert(
    task: Task, kind: type[BaseOperator], arguments: Mapping[str, Any], converter: TaskConverter | None
) -> BaseOperator:
    """Create an operator, through ``converter`` if one is given.

    :raises InvalidTask: when the converter fails, or returns another type.
    """
    converted = _converted(task, arguments, converter)
    if isinstance(converted, Mapping):
        return kind(**converted)
    if not isinstance(converted, BaseOperator):
        raise InvalidTask(f"task_converter must return operator arguments or an operator, got {converted!r:.200}")
    return converted


def convert_partial(
    task: Task, kind: type[BaseOperator], arguments: Mapping[str, Any], converter: TaskConverter | None
) -> OperatorPartial:
    """Create a partial operator, through ``converter`` if one is given.

    :raises InvalidTask: when the converter fails, or returns another type.
    """
    converted = _converted(task, arguments, converter)
    if isinstance(converted, Mapping):
        return kind.partial(**converted)
    if not isinstance(converted, OperatorPartial):
        raise InvalidTask(
            "task_converter must return operator arguments or Operator.partial(…) for a mapped task, "
            f"got {converted!r:.200}"
        )
    return converted


def _converted(task: Task, arguments: Mapping[str, Any], converter: TaskConverter | None) -> Any:
    if converter is None:
        return arguments
    try:
        return converter(_copy_of(task), dict(arguments))
    except Exception as error:
        raise InvalidTask(f"task_converter: {type(error).__name__}: {error}") from error


def _copy_of(task: Task) -> Task:
    """Return a copy that a converter may change; other groups may share the task itself."""
    copied = copy.copy(task)
    vars(copied).update(deep_copy_plain(vars(task)))
    return copied
