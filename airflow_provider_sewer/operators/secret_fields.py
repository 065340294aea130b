"""Masking of secrets in operator fields, which Airflow stores with the DAG and shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.masking import MASK, Secrets
from airflow_provider_sewer.core.secret_detection import is_secret, secret_arguments

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import MappedOperator


#: Fields that hold values of a workflow, in which secret arguments can occur.
FIELDS = ("parameters_and_flags", "args", "op_kwargs", "env", "slurm")


class SecretField:
    """Secret that Airflow stores and shows masked, as it is not text to Airflow.

    :param value: the secret, which may contain templates: a text or a number.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def serialize(self) -> str:
        """Return the mask, which Airflow stores instead."""
        return MASK

    def __repr__(self) -> str:
        """Return the mask, which is shown instead."""
        return MASK


def hide_secrets(env: Any) -> Any:
    """Return an environment with its secrets hidden; a text that is only a template stays, like any other value."""
    if not isinstance(env, Mapping):
        return env
    return {
        name: SecretField(value)
        if isinstance(value, str) and isinstance(name, str) and is_secret(name, value)
        else value
        for name, value in env.items()
    }


def reveal_secrets(field: Any) -> Any:
    """Return a field with its secrets revealed, however deep."""
    if isinstance(field, SecretField):
        return field.value
    if isinstance(field, Mapping):
        return {key: reveal_secrets(item) for key, item in field.items()}
    return type(field)(map(reveal_secrets, field)) if type(field) in (list, tuple) else field


def hide_arguments(fields: Mapping[str, Any], arguments: Any) -> dict[str, Any]:
    """Return fields with the secret arguments of an operator hidden, wherever they occur in them.

    :param fields: fields by name; those of :data:`FIELDS` and ``arguments`` are searched.
    :param arguments: the arguments of the operator.
    """
    found = secret_arguments(reveal_secrets(arguments)) if isinstance(arguments, Mapping) else {}
    if not (secrets := Secrets(found)):
        return dict(fields)
    names = (*FIELDS, "arguments")
    return {name: _hidden(value, secrets) if name in names else value for name, value in fields.items()}


def _hidden(value: Any, secrets: Secrets) -> Any:
    if isinstance(value, Mapping):
        return {key: _hidden(item, secrets) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_hidden(item, secrets) for item in value)
    is_plain = isinstance(value, str) or type(value) in (int, float)
    return SecretField(value) if is_plain and any(secrets.names_in(str(value))) else value


def hide_arguments_in_mapped(operator: MappedOperator) -> None:
    """Hide the secret arguments of a mapped operator, in the values that it is mapped over too."""
    given, over = operator.partial_kwargs, operator.expand_input
    arguments = given.get("arguments")
    given.update(hide_arguments(given, arguments))
    value: Any = over.value
    if isinstance(value, dict):
        over.value = hide_arguments(value, arguments)
    elif isinstance(value, Sequence):
        rows = [hide_arguments(row, arguments) if isinstance(row, Mapping) else row for row in value]
        over.value = rows


def hide_in_mapped(operator: MappedOperator) -> None:
    """Hide the secrets in the environments given to a mapped operator in the DAG file."""
    given = operator.partial_kwargs
    if "env" in given:
        given["env"] = hide_secrets(given["env"])
    over: Any = operator.expand_input
    if isinstance(over.value, dict):  # expand(env=[…])
        if isinstance(envs := over.value.get("env"), Sequence):
            over.value = {**over.value, "env": list(map(hide_secrets, envs))}
    elif isinstance(over.value, Sequence):  # expand_kwargs([…])
        over.value = [
            {**row, "env": hide_secrets(row["env"])} if isinstance(row, Mapping) and "env" in row else row
            for row in over.value
        ]


def rows_of(over: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the arguments in the DAG file that an operator or group is mapped over.

    :param over: Airflow's expand input.
    """
    if isinstance(over.value, dict):
        for name, values in over.value.items():
            yield from ({name: value} for value in (values if isinstance(values, Sequence) else ()))
    elif isinstance(over.value, Sequence):
        yield from (row for row in over.value if isinstance(row, Mapping))
