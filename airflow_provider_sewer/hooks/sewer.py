"""The ``sewer`` connection: an external interpreter and what its modules are given."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cached_property
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from airflow_provider_sewer.core.environment import build_environment, checked_env
from airflow_provider_sewer.core.errors import InvalidTask, SewerError, unknown_name
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.runners.interpreter import check_workdir, find_interpreter

_FIELDS = ("python", "workdir", "env", "secret_env", "inherit_env")


class SewerHook(BaseHook):
    """Reads a ``sewer`` connection.

    Its fields stand in the connection's extra: ``python``, ``workdir``, ``env``, ``secret_env`` and
    ``inherit_env``. The values of ``secret_env`` are masked in every log from the moment they are read.

    :param sewer_conn_id: the connection's id.
    """

    conn_name_attr = "sewer_conn_id"
    default_conn_name = "sewer_default"
    conn_type = "sewer"
    hook_name = "Sewer"

    def __init__(self, sewer_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sewer_conn_id = sewer_conn_id

    @cached_property
    def settings(self) -> Settings:
        """Return where modules run as far as the connection says so, the secret environment included.

        :raises InvalidTask: when a field cannot be used, naming it and the connection.
        """
        try:
            fields = self._fields
            settings = Settings.checked(
                python=fields.get("python"),
                env={**self._env("env"), **self.secret_env},
                inherit_env=_json_text(fields.get("inherit_env")),
                workdir=fields.get("workdir"),
            )
            return settings.map_paths(_absolute)
        except InvalidTask as error:
            raise InvalidTask(f"connection {self.sewer_conn_id!r}: {error}") from None

    @cached_property
    def secret_env(self) -> dict[str, str]:
        """Return the secret environment, every value of it masked from now on.

        :raises InvalidTask: when it is no JSON object of names and values.
        """
        secret_env = self._env("secret_env")
        for value in secret_env.values():
            # A log is masked line by line, so the lines of a key file count each for itself.
            for secret in {value, *value.splitlines()}:
                mask_secret(secret)
        return secret_env

    def get_conn(self) -> Settings:
        """Return :attr:`settings`."""
        return self.settings

    def test_connection(self) -> tuple[bool, str]:
        """Start the interpreter, and say which one it is or what is wrong."""
        try:
            settings = self.settings
            env = build_environment(settings.env, settings.inherit_env or False)
            interpreter = find_interpreter(settings.python, env)
            check_workdir(settings.workdir)
        except SewerError as error:
            return False, str(error)
        return True, f"Python {interpreter.version} at {interpreter.path} (environment {interpreter.prefix})"

    @cached_property
    def _fields(self) -> dict[str, Any]:
        connection = self.get_connection(self.sewer_conn_id)
        fields = _json_object("extra", connection.extra)
        for field in fields:
            if field not in _FIELDS:
                raise InvalidTask(unknown_name("field", field, _FIELDS))
        return {field: value for field, value in fields.items() if value not in (None, "", [], {})}

    def _env(self, field: str) -> dict[str, str]:
        return checked_env(_json_object(field, self._fields.get(field)), field)


def _json_object(field: str, value: Any) -> dict[str, Any]:
    """Read a field that holds a JSON object, or the text of one; never show what it holds."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            position = getattr(error, "pos", 0)
            raise InvalidTask(
                f"{field}: no JSON (at character {position}); write an object of names and values"
            ) from None
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise InvalidTask(f"{field}: a JSON object of names and values is needed, not {type(value).__name__}")
    return value


def _json_text(value: Any) -> Any:
    """Read a list that a connection written as a URI can only hold as text."""
    if isinstance(value, str):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _absolute(path: str) -> str:
    expanded = os.path.expanduser(path)
    if not os.path.isabs(expanded):
        raise InvalidTask(f"{path!r} is relative; in a connection, paths are absolute (or a bare name for python)")
    return expanded
