"""Hook for the ``sewer`` connection: external interpreter, its environment, and defaults of Slurm jobs."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from airflow_provider_sewer.core.environment import checked_env
from airflow_provider_sewer.core.errors import InvalidTask, SewerError, unknown_name
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.secret_detection import masked_text
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.core.trusted_files import parse_json
from airflow_provider_sewer.execution.interpreter import check_workdir, recognized_interpreter
from airflow_provider_sewer.slurm.job_url import checked_job_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FIELDS = ("python", "workdir", "env", "secret_env", "inherit_env", *SlurmSettings._fields, "job_url")


#: Slurm fields of type text. The others are numbers, booleans and lists, which a connection URI holds as text.
_TEXTS = ("run_dir", "cluster", "on_kill_action")


class SewerHook(BaseHook):
    """Hook that reads a ``sewer`` connection.

    Its fields are in the connection's extra: ``python``, ``workdir``, ``env``, ``secret_env``,
    ``inherit_env``, all of :class:`~airflow_provider_sewer.core.slurm_settings.SlurmSettings`, and ``job_url``. The
    values of ``secret_env`` are masked in every log once they are read.

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
    def settings(self) -> ExecutionSettings:
        """Return the execution settings of the connection, including the secret environment.

        :raises InvalidTask: if a field is invalid, naming it and the connection.
        """
        with self._naming_connection():
            fields = self._fields
            settings = ExecutionSettings.checked(
                python=fields.get("python"),
                env={**self._env("env"), **self.secret_env},
                inherit_env=_json_text(fields.get("inherit_env")),
                workdir=fields.get("workdir"),
            )
            return settings.map_paths(_absolute)

    @cached_property
    def slurm_settings(self) -> SlurmSettings:
        """Return the Slurm settings of the connection.

        :raises InvalidTask: if a field is invalid, naming it and the connection.
        """
        with self._naming_connection():
            fields = {name: value for name, value in self._fields.items() if name in SlurmSettings._fields}
            read = {name: value if name in _TEXTS else _json_text(value) for name, value in fields.items()}
            read["slurm"] = _json_object("slurm", fields.get("slurm"))
            read["retry_with"] = _json_object("retry_with", fields.get("retry_with")) or None
            return SlurmSettings.checked(**read).map_paths(_absolute)

    @cached_property
    def job_url(self) -> str | None:
        """Return the template of a job's link (see :mod:`airflow_provider_sewer.slurm.job_url`).

        :raises InvalidTask: if the template is invalid, naming the connection.
        """
        with self._naming_connection():
            return checked_job_url(self._fields.get("job_url"))

    @cached_property
    def secret_env(self) -> dict[str, str]:
        """Return the secret environment, and mask its values from now on.

        :raises InvalidTask: if it is not a JSON object of names and values.
        """
        secret_env = self._env("secret_env")
        mask_secrets(secret_env.values())
        return secret_env

    def get_conn(self) -> ExecutionSettings:
        """Return :attr:`settings`."""
        return self.settings

    def test_connection(self) -> tuple[bool, str]:
        """Check for the interpreter and for Slurm, and return a report.

        Users who may edit the connection must not run code here as the user of the API server. Therefore this starts
        only a Python, without the connection's environment.
        """
        try:
            settings = self.settings
            check_workdir(settings.workdir)
            slurm = _found_slurm(self.slurm_settings.with_fallback(DEFAULTS))
            _ = self.job_url
            interpreter = recognized_interpreter(settings.python)
        except SewerError as error:
            return False, masked_text(str(error))
        return True, f"Python {interpreter.version} at {interpreter.path} (environment {interpreter.prefix}); {slurm}"

    @cached_property
    def _fields(self) -> dict[str, Any]:
        return _known_fields(self.get_connection(self.sewer_conn_id).extra)

    def _env(self, field: str) -> dict[str, str]:
        return checked_env(_json_object(field, self._fields.get(field)), field)

    @contextmanager
    def _naming_connection(self) -> Iterator[None]:
        """Name the connection in errors raised in the block."""
        try:
            yield
        except InvalidTask as error:
            raise InvalidTask(f"connection {self.sewer_conn_id!r}: {error}") from None


def _known_fields(extra: Any) -> dict[str, Any]:
    """Return the fields that are not blank."""
    fields = _json_object("extra", extra)
    for field in fields:
        if field not in _FIELDS:
            raise InvalidTask(unknown_name("field", field, _FIELDS))
    stripped = {field: _without_blanks(value) for field, value in fields.items()}
    return {field: value for field, value in stripped.items() if value not in (None, "", [], {})}


def _without_blanks(value: Any) -> Any:
    """Return a form field's value without surrounding blanks and without empty lines of a list."""
    if isinstance(value, list):
        return [item for item in map(_without_blanks, value) if item != ""]
    return value.strip() if isinstance(value, str) else value


def mask_secrets(secrets: Iterable[str]) -> None:
    """Register these values for masking in Airflow, in all forms in which programs usually write them."""
    if written := Secrets(secrets).forms:
        mask_secret(list(written))


def _found_slurm(settings: SlurmSettings) -> str:
    sbatch = shutil.which("sbatch")
    if settings.cluster == "slurm" and not sbatch:
        raise InvalidTask("cluster='slurm' requires sbatch, which is not on PATH here")
    where = "on this machine" if settings.cluster == "local" or not sbatch else f"by {sbatch}"
    reason = "" if sbatch or settings.cluster == "local" else " (no sbatch on PATH)"
    return f"Slurm tasks run {where}{reason}, with job directories in {settings.run_dir}"


def _json_object(field: str, value: Any) -> dict[str, Any]:
    """Read a field that holds a JSON object, or its text; errors never show the value."""
    if isinstance(value, str) and value.strip():
        try:
            value = parse_json(value)
        except ValueError as error:
            position = getattr(error, "pos", 0)
            raise InvalidTask(
                f"{field} must be valid JSON (error at character {position}); write an object of names and values"
            ) from None
    if value in (None, ""):
        return {}
    if not isinstance(value, dict):
        raise InvalidTask(f"{field} must be a JSON object of names and values, got {type(value).__name__}")
    return value


def _json_text(value: Any) -> Any:
    """Read a list, number or boolean that a connection URI can hold only as text."""
    if isinstance(value, str):
        with suppress(ValueError):
            return parse_json({"True": "true", "False": "false"}.get(value, value))
    return value


def _absolute(path: str) -> str:
    expanded = os.path.expanduser(path)
    if not os.path.isabs(expanded):
        raise InvalidTask(f"a path in a connection must be absolute (or a bare name for python); {path!r} is relative")
    return expanded
