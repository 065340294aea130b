"""Which arguments of operators can be said where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.slurm_settings import SlurmSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a workflow file says in fields of its own, and so not in ``operator_kwargs``.
TASK_FIELDS = frozenset(
    {"task_id", "task_display_name", "arguments", "module", "parameters_and_flags", "args", "use_underscores", "python",
     "env", "inherit_env", "workdir", "run_on", "slurm", "task_group", "dag", "function", "op_kwargs", "products",
     "dependencies", "run_when", "compare", "stale_with", "stale_after", "item", "products_of_all"}
)  # fmt: skip

#: Fields of a task that a default argument of a group cannot say: each task says them itself.
_OWN_FIELDS = TASK_FIELDS - {"arguments", "python", "env", "inherit_env", "workdir", "slurm"}

#: What only the operator for Slurm knows, and so reaches no other one out of ``operator_kwargs``.
SLURM_FIELDS = frozenset(SlurmSettings._fields) - TASK_FIELDS


def split_operator_kwargs(operator_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what only the operator for Slurm knows from what all operators do."""
    for_slurm = {name: value for name, value in operator_kwargs.items() if name in SLURM_FIELDS}
    return for_slurm, {name: value for name, value in operator_kwargs.items() if name not in for_slurm}


def check_default_args(given: Mapping[str, Any]) -> None:
    """Make sure that the default arguments of a group hold for its tasks.

    :raises InvalidTask: naming those that do not.
    """
    if taken := sorted(_OWN_FIELDS.intersection(given)):
        raise InvalidTask(
            f"default_args must not contain {', '.join(map(repr, taken))}; use the field of the task or of the group"
        )


def check_operator_kwargs(given: Mapping[str, Any], astray: Mapping[str, Any]) -> None:
    """Make sure that everything in ``operator_kwargs`` can stand there.

    :param given: what all operators know.
    :param astray: what only the operator for Slurm knows, where it is another one.
    :raises InvalidTask: naming what cannot.
    """
    if taken := sorted(TASK_FIELDS.intersection(given)):
        raise InvalidTask(
            f"operator_kwargs: {', '.join(map(repr, taken))} cannot stand there; "
            "say it with the task's or the group's own field"
        )
    if astray:
        raise InvalidTask(
            f"operator_kwargs: {', '.join(map(repr, sorted(astray)))} can only be said of a task that runs on Slurm; "
            "give the task run_on='slurm', or say it for the whole group"
        )
