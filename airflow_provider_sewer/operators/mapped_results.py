"""Validation of results that other tasks are mapped over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


def check_for_mapping(operator: BaseOperator, value: Any, *, is_instance: bool) -> None:
    """Check that tasks can be mapped over a result.

    Otherwise each of their instances would fail with an error about Airflow's internals.

    :param value: the result.
    :param is_instance: whether it is the result of one instance of a mapped task.
    :raises InvalidTask: naming the task that cannot be mapped.
    """
    for check in dict.fromkeys(_checks(operator)):
        check([value] if is_instance else value)


def _checks(operator: BaseOperator) -> Iterator[Callable[[Any], None]]:
    for mapped in operator.iter_mapped_dependants():
        rows = getattr(getattr(mapped, "expand_input", None), "value", None)
        for function in getattr(rows, "callables", ()):
            if check := getattr(function, "check", None):
                yield check
