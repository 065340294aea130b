"""Type checks for task group arguments.

Values of the right type are validated where they are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask


def check_arguments(given: Mapping[str, Any]) -> None:
    """Check the types of task group arguments.

    :param given: the arguments by name; ``None`` means not given.
    :raises InvalidTask: naming the first argument of a wrong type, and its value.
    """
    for name, value in given.items():
        expected, is_valid = _TYPES.get(name, _ANY_TYPE)
        if not is_valid(value) and (value is not None or name in _REQUIRED):
            raise InvalidTask(f"{name} must be {expected}, got {value!r:.200}")


def has_string_keys(value: Any) -> bool:
    """Return whether a value is a mapping with string keys only."""
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _is_path(value: Any) -> bool:
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    return isinstance(path, str) and path != ""


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_str(value: Any) -> bool:
    return isinstance(value, str)


#: Required type of each argument, and its check.
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "workflow_file": ("a path", _is_path),
    "group_id": ("a string", _is_str),
    "prefix_group_id": ("a bool", _is_bool),
    "workflow": ("the name of a workflow", _is_str),
    "arguments": ("a mapping of parameter names to values", has_string_keys),
    "jobs": ("the name of a module", _is_str),
    "sewer_conn_id": ("a string", _is_str),
    "operator_kwargs": ("a mapping of operator argument names to values", has_string_keys),
    "overrides": ("a mapping of task names to operator arguments", has_string_keys),
    "task_converter": ("a function", callable),
    "default_args": ("a mapping of operator argument names to values", has_string_keys),
    "read_with_interpreter": ("a bool", _is_bool),
}
_REQUIRED = ("workflow_file", "prefix_group_id", "read_with_interpreter")

#: Other arguments are checked along with their values.
_ANY_TYPE = ("anything", lambda _: True)
