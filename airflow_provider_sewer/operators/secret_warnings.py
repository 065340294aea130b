"""Warnings at parse time of secrets that other users could read in a command line, a job script or the stored DAG."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.expandinput import MappedArgument
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_provider_sewer.core.errors import SecretWarning
from airflow_provider_sewer.core.secret_detection import exposed
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.operators.secret_fields import (
    SecretField,
    hide_arguments_in_mapped,
    hide_in_mapped,
    hide_secrets,
    rows_of,
)
from airflow_provider_sewer.operators.workdir_warning import OncePerDag, line_in

if TYPE_CHECKING:
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


def stored_secrets(env: Any) -> Iterator[str]:
    """Yield a warning for each secret that Airflow stores with the task group mapped over it.

    :param env: the environment of an operator.
    """
    if isinstance(env, Mapping):
        env = [{name: value} for name, values in env.items() for value in _of_group(values)]
    else:
        env = _of_group(env)
    yield from (_advice(name, "the values that a task group is mapped over") for each in env for name in _names(each))


def stored_in_defaults(dag: Any) -> Iterator[str]:
    """Yield a warning for each secret in the environment of a DAG's default arguments, which Airflow stores."""
    yield from (f"default_args: {_advice(name, 'them')}" for name in _names(dag.default_args.get("env")))


def _of_group(value: Any) -> list[Any]:
    """Return the values in the DAG file for an argument of a mapped task group."""
    if not isinstance(value, MappedArgument):
        return []
    return [row[value._key] for row in rows_of(value._input) if value._key in row]


def _names(env: Any) -> list[str]:
    found = hide_secrets(env)
    return [name for name, value in found.items() if isinstance(value, SecretField)] if isinstance(found, dict) else []


def _advice(name: Any, where: str) -> str:
    return (
        f"env {name!r} looks like a secret, and Airflow stores {where} unmasked. Pass it in env of the task or of "
        "sewer_task_group(), in secret_env of the connection, or as a template such as '{{ conn.name.password }}'"
    )
