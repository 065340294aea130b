"""What can be given to a task group: whether each argument is of the kind that it has to be.

What an argument of the right kind says is checked by whoever knows what it means.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask


def check_arguments(given: Mapping[str, Any]) -> None:
    """Make sure that arguments of a task group are of the kinds that they have to be.

    :param given: those that are given, by their names; what is ``None`` is not said.
    :raises InvalidTask: naming the first that is not, and its value.
    """
    for name, value in given.items():
        needed, fits = _KINDS.get(name, _ANYTHING)
        if not fits(value) and (value is not None or name in _REQUIRED):
            raise InvalidTask(f"{name}: {needed} is needed, not {value!r:.200}")


def is_by_name(value: Any) -> bool:
    """Tell whether something is a mapping from names."""
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _is_path(value: Any) -> bool:
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    return isinstance(path, str) and path != ""


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


#: What the arguments have to be, and what tells whether one is that.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "workflow_file": ("a path", _is_path),
    "group_id": ("a text", _is_text),
    "prefix_group_id": ("True or False", _is_bool),
    "workflow": ("the name of a workflow", _is_text),
    "arguments": ("a mapping from names of parameters to values", is_by_name),
    "jobs": ("the name of a module", _is_text),
    "sewer_conn_id": ("a text", _is_text),
    "operator_kwargs": ("a mapping from names of operator arguments to values", is_by_name),
    "overrides": ("a mapping from names of tasks to operator arguments", is_by_name),
    "task_converter": ("a function", callable),
    "default_args": ("a mapping from names of operator arguments to values", is_by_name),
    "read_with_interpreter": ("True or False", _is_bool),
}
_REQUIRED = ("workflow_file", "prefix_group_id", "read_with_interpreter")

#: The others are checked with what they mean.
_ANYTHING = ("anything", lambda _: True)
