"""Checks of an operator's fields while the DAG is parsed, except for values that are known only at run time."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow_provider_sewer.core.call import checked_kwargs, function_call
from airflow_provider_sewer.core.cli_args import to_arguments
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.paths import checked_text
from airflow_provider_sewer.core.size_limits import MAX_SECONDS
from airflow_provider_sewer.core.staleness import RunPolicy
from airflow_provider_sewer.core.task_fields import checked_target
from airflow_provider_sewer.operators.secret_fields import SecretField
from airflow_provider_sewer.operators.xcom_references import is_reference

#: Placeholder for a value that is known only at run time.
RUNTIME_VALUE = "{{ … }}"


def check_fields(operator: Any, known: Mapping[str, Any], literal: Mapping[str, Any], *, has_products: bool) -> None:
    """Check the fields of an operator.

    :param known: its template fields, without values known only at run time.
    :param literal: the same, without fields that are a single template.
    :param has_products: whether it may have products.
    :raises InvalidTask: naming the invalid field.
    """
    target = ("module", "function")
    checked_target(*(RUNTIME_VALUE if is_reference(getattr(operator, field)) else known[field] for field in target))
    check_types(literal)
    to_arguments(literal["parameters_and_flags"] or {}, args=literal["args"] or ())
    function_call("", checked_kwargs(literal["op_kwargs"] or {}))
    for field in ("products", "dependencies"):
        for path in literal[field] or ():
            checked_text(field, path)
    RunPolicy.checked(operator.run_when, operator.compare, operator.stale_with, has_products=has_products)
    seconds(operator.termination_grace_period)
    _check_codes(operator.skip_on_exit_code)
    ExecutionSettings.checked(
        python=known["python"],
        env=literal["env"],
        inherit_env=operator.inherit_env,
        workdir=known["workdir"],
    )


def known(value: Any) -> Any:
    """Return a value without the parts known only at run time; ``None`` for an XCom as a whole."""
    if isinstance(value, SecretField):
        return value.value
    if is_reference(value):
        return None
    if isinstance(value, Mapping):
        return {key: known(item) for key, item in value.items() if not is_reference(item)}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, range)):
        return [known(item) for item in value if not is_reference(item)]
    return value


def check_types(fields: Mapping[str, Any]) -> None:
    """Check that those fields that can contain markers are mappings or lists, or not given.

    :raises InvalidTask: naming the one that is not.
    """
    for field in ("parameters_and_flags", "op_kwargs"):
        if (value := fields.get(field)) is not None and not isinstance(value, Mapping):
            raise InvalidTask(f"{field} must be a mapping, got {type(value).__name__}")
    for field in ("args", "products", "dependencies"):
        if (value := fields.get(field)) is not None and not isinstance(value, (list, tuple)):
            raise InvalidTask(f"{field} must be a list, got {value!r:.200}")


def seconds(value: Any) -> float:
    """Return a termination grace period in seconds.

    :raises InvalidTask: if it is neither a number nor a timedelta.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= MAX_SECONDS:
        message = f"termination_grace_period must be seconds or a timedelta, got {value!r:.200}"
        raise InvalidTask(f"{message}; at most {MAX_SECONDS:,} s")
    return float(number)


def _check_codes(codes: Any) -> None:
    listed = [codes] if isinstance(codes, int) or codes is None else codes
    if isinstance(listed, str) or not isinstance(listed, Container):
        raise InvalidTask(f"skip_on_exit_code must be an exit code or several, got {codes!r:.200}")
    if isinstance(listed, Iterable) and not all(code is None or isinstance(code, int) for code in listed):
        raise InvalidTask(f"skip_on_exit_code must contain integers only, got {codes!r:.200}")
