"""Type checks for task group arguments.

Values of the right type are validated where they are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.slurm_settings import SlurmSettings


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


#: Arguments with a field of their own in the workflow file, and so rejected in ``operator_kwargs``.
TASK_FIELDS = frozenset(
    {"task_id", "task_display_name", "arguments", "module", "parameters_and_flags", "args", "use_underscores", "python",
     "env", "inherit_env", "workdir", "run_on", "slurm", "retry_with", "task_group", "dag", "function", "op_kwargs",
     "products", "dependencies", "stdin", "stdout", "run_when", "compare", "stale_with", "stale_after", "item",
     "products_of_all"}
)  # fmt: skip

#: Arguments rejected in ``default_args``, because each task sets them itself.
_OWN_FIELDS = TASK_FIELDS - {"arguments", "python", "env", "inherit_env", "workdir", "slurm", "retry_with"}

#: ``operator_kwargs`` that only the Slurm operator accepts, and so are passed to no other operator.
SLURM_FIELDS = frozenset(SlurmSettings._fields) - TASK_FIELDS


def split_operator_kwargs(operator_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split arguments into those that only the Slurm operator accepts and all others."""
    for_slurm = {name: value for name, value in operator_kwargs.items() if name in SLURM_FIELDS}
    return for_slurm, {name: value for name, value in operator_kwargs.items() if name not in for_slurm}


def check_default_args(given: Mapping[str, Any]) -> None:
    """Reject default arguments that would have no effect.

    :raises InvalidTask: naming them.
    """
    if taken := sorted(_OWN_FIELDS.intersection(given)):
        raise InvalidTask(
            f"default_args must not contain {', '.join(map(repr, taken))}; use the field of the task or of the group"
        )


def check_operator_kwargs(given: Mapping[str, Any], slurm_only: Mapping[str, Any]) -> None:
    """Reject arguments that ``operator_kwargs`` must not contain.

    :param given: arguments that every operator accepts.
    :param slurm_only: arguments of the Slurm operator, given for a task that does not run on Slurm.
    :raises InvalidTask: naming them.
    """
    if taken := sorted(TASK_FIELDS.intersection(given)):
        raise InvalidTask(
            f"operator_kwargs must not contain {', '.join(map(repr, taken))}; use the field of the task or of the group"
        )
    if slurm_only:
        raise InvalidTask(
            f"operator_kwargs: {', '.join(map(repr, sorted(slurm_only)))} can only be set for tasks on Slurm; "
            "set run_on='slurm' for the task, or pass it to the whole group"
        )
