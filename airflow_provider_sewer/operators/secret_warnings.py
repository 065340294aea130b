"""Warnings at parse time of secrets that other users could read in a command line, a job script or the stored DAG."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_provider_sewer.core.errors import SecretWarning
from airflow_provider_sewer.core.secret_detection import exposed
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.operators.secret_fields import (
    hide_arguments_in_mapped,
    hide_in_mapped,
    rows_of,
    stored_in_defaults,
    stored_secrets,
)
from airflow_provider_sewer.operators.workdir_warning import OncePerDag, line_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.definitions._internal.expandinput import ExpandInput
    from airflow.sdk.definitions.mappedoperator import MappedOperator

#: Set while operators are created from tasks, which report their secrets with the line of the task.
are_secrets_named: ContextVar[bool] = ContextVar("are_secrets_named", default=False)
_is_first_of = OncePerDag()


class HidingPartial(OperatorPartial):
    """Partial operator that reports and hides the secrets in the arguments it is mapped over."""

    def _expand(self, expand_input: ExpandInput, *, strict: bool) -> MappedOperator:
        operator = super()._expand(expand_input, strict=strict)
        warn_of_secrets(operator.task_id, operator.dag, *rows_of(expand_input))
        hide_in_mapped(operator)
        hide_arguments_in_mapped(operator)
        return operator


def warn_of_secrets(task_id: str, dag: Any, *given: Mapping[str, Any]) -> None:
    """Warn at parse time of secrets that other users could read in a command line, a job script or the stored DAG.

    :param given: fields of an operator, or of several instances of a mapped one.
    """
    found: list[str] = []
    for fields in given:
        if not are_secrets_named.get():
            parameters, args, kwargs, slurm = map(fields.get, ("parameters_and_flags", "args", "op_kwargs", "slurm"))
            found += exposed(parameters, args, kwargs, slurm)
            found += exposed({}, (), fields.get("arguments"), {})
        found += stored_secrets(fields.get("env"))
    found = [f"task {task_id!r}: {text}" for text in dict.fromkeys(found)]
    if _is_first_of(dag):
        found += stored_in_defaults(dag)
    if found:
        file = str(getattr(dag, "fileloc", ""))
        line = SourceLine(file, line_in(file))
        for text in found:
            warn_of_secret(f"{line}: {text}", file)


def warn_of_secret(message: str, file: str) -> None:
    """Warn of a secret, without a line number: Python would print that line, and the secret in it."""
    warnings.warn_explicit(message, SecretWarning, file or "<unknown>", 0)
