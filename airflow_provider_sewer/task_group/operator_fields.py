"""Operator arguments by the places where they may be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.slurm_settings import SlurmSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Arguments with a field of their own in the workflow file, and so rejected in ``operator_kwargs``.
TASK_FIELDS = frozenset(
    {"task_id", "task_display_name", "arguments", "module", "parameters_and_flags", "args", "use_underscores", "python",
     "env", "inherit_env", "workdir", "run_on", "slurm", "task_group", "dag", "function", "op_kwargs", "products",
     "dependencies", "run_when", "compare", "stale_with", "stale_after", "item", "products_of_all"}
)  # fmt: skip

#: Arguments rejected in ``default_args``, because each task sets them itself.
_OWN_FIELDS = TASK_FIELDS - {"arguments", "python", "env", "inherit_env", "workdir", "slurm"}

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
