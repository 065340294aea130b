"""What a task leaves for others that are mapped over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


def check_for_mapping(operator: BaseOperator, value: Any, *, is_instance: bool) -> None:
    """Make sure that tasks can be mapped over a result.

    Else Airflow would say so in each of their instances, and of its own machinery.

    :param value: the result.
    :param is_instance: it is one of several that all instances of a mapped task leave.
    :raises InvalidTask: naming the task that cannot.
    """
    for check in dict.fromkeys(_checks(operator)):
        check([value] if is_instance else value)


def _checks(operator: BaseOperator) -> Iterator[Callable[[Any], None]]:
    for mapped in operator.iter_mapped_dependants():
        rows = getattr(getattr(mapped, "expand_input", None), "value", None)
        for function in getattr(rows, "callables", ()):
            if check := getattr(function, "check", None):
                yield check
