"""Mask secrets in what is written for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.arguments import looks_secret, to_arguments
from airflow_provider_sewer.core.command import MASK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_sewer.core.task import Task


def masked_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables, the secret ones masked, and their values in the others as well."""
    secrets = secret_values(env)
    return {name: MASK if looks_secret(name) else without(secrets, value) for name, value in env.items()}


def masked_arguments(task: Task) -> list[str]:
    """Return the arguments of a task, those that look secret masked, and its secret variables' values as well."""
    parameters = {key: _masked_parameter(key, value) for key, value in task.parameters_and_flags.items()}
    arguments = to_arguments(parameters, use_underscores=task.use_underscores, args=task.args)
    secrets = secret_values(task.settings.env)
    return [without(secrets, word) for word in _masked_words(arguments)]


def secret_values(env: Mapping[str, str]) -> list[str]:
    """Return the values of the secret variables; the longest first, for one may be part of another."""
    return sorted((value for name, value in env.items() if value and looks_secret(name)), key=len, reverse=True)


def without(secrets: Iterable[str], text: str) -> str:
    """Return text with these values masked wherever they stand in it."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _masked_parameter(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if looks_secret(key):
        return [MASK for _ in value] if isinstance(value, (list, tuple)) else MASK
    return _masked_inside(value)


def _masked_inside(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: MASK if looks_secret(str(key)) else _masked_inside(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked_inside(inner) for inner in value]
    return value


def _masked_words(words: Iterable[str]) -> list[str]:
    """Mask by option: ``--password x``, ``--password=x``, and ``db.password=x`` without a dash."""
    masked: list[str] = []
    after_secret = False
    for word in words:
        option, equals, _ = word.partition("=")
        is_secret = looks_secret(option)
        if after_secret and not word.startswith("--"):
            masked.append(MASK)
        else:
            masked.append(f"{option}={MASK}" if equals and is_secret else word)
        after_secret = word.startswith("-") and not equals and is_secret
    return masked
