"""Secret variables in the fields of an operator, which Airflow stores with the DAG and shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_sewer.core.masking import MASK
from airflow_provider_sewer.core.secrecy import is_secret
from airflow_provider_sewer.core.templates import is_template


class Hidden:
    """A secret that Airflow stores and shows masked; no template, as it is no text to Airflow.

    :param value: the secret.
    """

    def __init__(self, value: str) -> None:
        self.value = value

    def serialize(self) -> str:
        """Return the text that Airflow stores instead."""
        return MASK

    def __repr__(self) -> str:
        """Return the text that is shown instead."""
        return MASK


def hidden(env: Any) -> Any:
    """Return an environment with its secrets hidden; templates are no secrets yet, and anything else stays."""
    if type(env) is not dict:
        return env
    return {
        name: Hidden(value)
        if type(value) is str and type(name) is str and is_secret(name, value) and not is_template(value)
        else value
        for name, value in env.items()
    }


def opened(env: Any) -> Any:
    """Return an environment with its secrets."""
    if not isinstance(env, Mapping):
        return env
    return {name: value.value if isinstance(value, Hidden) else value for name, value in env.items()}
