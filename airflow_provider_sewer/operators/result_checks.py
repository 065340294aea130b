"""Checks of a task's result: whether it can be an XCom, and whether tasks can be mapped over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_sewer.core.errors import InvalidTask, ModuleFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow.sdk.types import RuntimeTaskInstanceProtocol

_AIRFLOWS_KEYS = frozenset({"__classname__", "__version__", "__data__", "__type", "__var"})


def checked_result(value: Any, ti: RuntimeTaskInstanceProtocol, mapped: Iterable[Any]) -> Any:
    """Return a result, if it can be an XCom, and if tasks can be mapped over it.

    Otherwise each of their instances would fail with an error about Airflow's internals. Airflow encodes XComs as
    msgpack and JSON, and reserves some keys. Its own error would come much later and would not name the value.

    :param ti: the task instance.
    :param mapped: the tasks that are mapped over the result.
    :raises AirflowFailException: naming the task that cannot be mapped.
    :raises ModuleFailed: if it cannot be an XCom, with the reason.
    """
    is_instance = ti.map_index is not None and ti.map_index >= 0
    try:
        for check in dict.fromkeys(_checks(mapped)):
            check([value] if is_instance else value)
    except InvalidTask as error:
        raise AirflowFailException(error.message) from None
    if problem := next(_problems(value), None):
        raise ModuleFailed(f"the module exited with 0, but Airflow cannot store its result: {problem}", exit_code=0)
    return value


def _checks(mapped: Iterable[Any]) -> Iterator[Callable[[Any], None]]:
    for each in mapped:
        rows = getattr(getattr(each, "expand_input", None), "value", None)
        for function in getattr(rows, "callables", ()):
            if check := getattr(function, "check", None):
                yield check


def _problems(value: Any) -> Iterator[str]:
    """Yield the reasons why a result, or a value in it, cannot be an XCom."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        yield f"a number of {len(str(value))} digits does not fit into 64 bits; return it as text"
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value if type(value) is list else ()):
        if key in _AIRFLOWS_KEYS:
            yield f"the key {key!r} is reserved by Airflow"
        yield from _problems(item)
