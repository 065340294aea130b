"""Defaults of options in ``[tool.sewer]`` of ``pyproject.toml`` or in ``sewer.toml``, and in ``SEWER_…`` variables."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any, NamedTuple

from airflow_provider_sewer.cli.colors import COLOR_MODES
from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.core.errors import SewerError, unknown_name
from airflow_provider_sewer.core.execution_settings import resolve_relative
from airflow_provider_sewer.core.secret_detection import looks_secret, masked_text
from airflow_provider_sewer.core.task_fields import RUN_ON
from airflow_provider_sewer.core.trusted_files import InvalidRecord, read_own, read_regular

_OWN, _PROJECT = "sewer.toml", "pyproject.toml"
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_LARGEST = 1024 * 1024


class Setting(NamedTuple):
    """Kind of the values of a setting.

    :param kind: its name, for messages.
    :param read: returns the value as its option takes it, from the value in a file and the folder of the file;
        ``None`` if it has another kind.
    :param default: its default, for ``sppe config``.
    """

    kind: str
    read: Callable[[Any, str], Any]
    default: str


class Configuration(NamedTuple):
    """Settings of a file.

    :param path: the file; empty if there is none.
    :param values: the values, as the options take them.
    """

    path: str
    values: Mapping[str, Any]


def variable(setting: str) -> str:
    """Return the environment variable of a setting."""
    return f"SEWER_{setting.upper()}"


def configuration(file: str | None) -> Configuration:
    """Return the settings of the nearest file with settings: in the folder of the workflow file, or above.

    :param file: the workflow file; ``None`` for the current directory.
    :raises SewerError: when a setting is unknown, or its value is not valid.
    """
    folder = PurePath(os.path.abspath(os.path.dirname(file) if file else "."))
    for parent in (folder, *folder.parents):
        for name in (_OWN, _PROJECT):
            path = str(parent / name)
            table = _table(path)
            if table is not None:
                return Configuration(path, {key: _value(path, key, value) for key, value in table.items()})
    return Configuration("", {})


def listed(file: str | None) -> str:
    """Return each setting with its value and the place that it comes from; secrets are masked."""
    found = configuration(file)
    rows = []
    for key, setting in SETTINGS.items():
        given = os.environ.get(variable(key))
        if key in found.values and (given is None or setting.kind == _TABLE):
            rows += [(key, text, found.path) for text in _texts(key, found.values[key])]
        if given is not None:
            rows += [(key, _masked(key, each), f"${variable(key)}") for each in _words(setting, given)]
        if given is None and key not in found.values:
            rows.append((key, setting.default, "default"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{key:<{widths[0]}}  {text:<{widths[1]}}  {place}" for key, text, place in rows)


def _words(setting: Setting, given: str) -> list[str]:
    return given.split() if setting.kind in (_TABLE, _NAMES) else [given]


def _texts(key: str, value: Any) -> list[str]:
    return [_masked(key, str(each)) for each in (value if isinstance(value, tuple) else (value,))]


def _masked(key: str, text: str) -> str:
    name, equals, _ = text.partition("=")
    return f"{name}=***" if key == "env" and equals and looks_secret(name) else masked_text(text)


def _table(path: str) -> Mapping[str, Any] | None:
    """Return the settings of a file; ``None`` if it does not exist, has none, or another user could have written it."""
    import tomllib

    try:
        data = read_own(path, largest=_LARGEST)
    except OSError as error:
        if error.errno not in _MISSING and _mentions_settings(path):
            reason = str(error) if isinstance(error, InvalidRecord) else error.strerror
            write_message(f"sppe: {path} is ignored: {reason}")
        return None
    try:
        tables = tomllib.loads(data.decode())
    except ValueError as error:
        if _mentions_settings(path):
            raise SewerError(f"{path}: {error}") from None
        return None
    if os.path.basename(path) == _OWN:
        return tables
    tool = tables.get("tool")
    table = tool.get("sewer") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise SewerError(f"{path}: tool.sewer must be a table, got {table!r:.200}")
    return table


def _mentions_settings(path: str) -> bool:
    if os.path.basename(path) == _OWN:
        return True
    with suppress(OSError):
        return b"tool.sewer" in read_regular(path, largest=_LARGEST)
    return False


def _value(path: str, key: str, value: Any) -> Any:
    if key not in SETTINGS:
        raise SewerError(f"{path}: {unknown_name('setting', key, SETTINGS, most=len(SETTINGS))}")
    setting = SETTINGS[key]
    read = setting.read(value, os.path.dirname(path))
    if read is None:
        raise SewerError(f"{path}: {key} must be {setting.kind}, got {value!r:.200}")
    return read


def _text(value: Any, _: str) -> str | None:
    return value if isinstance(value, str) and value else None


def _path(value: Any, folder: str) -> str | None:
    return resolve_relative(folder, value) if isinstance(value, str) and value else None


def _interpreter(value: Any, folder: str) -> str | None:
    return _path(value, folder) if isinstance(value, str) and os.sep in value else _text(value, folder)


def _choice(value: Any, _: str) -> str | None:
    return value if value in RUN_ON else None


def _color(value: Any, _: str) -> str | None:
    return value if value in COLOR_MODES else None


def _retries(value: Any, _: str) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _count(value: Any, _: str) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _variables(value: Any, _: str) -> tuple[str, ...] | None:
    if not isinstance(value, dict) or not all(isinstance(each, (str, int, float)) for each in value.values()):
        return None
    return tuple(f"{name}={each}" for name, each in value.items())


def _amounts(value: Any, folder: str) -> tuple[str, ...] | None:
    if not isinstance(value, dict) or not all(_count(each, folder) for each in value.values()):
        return None
    return tuple(f"{name}={each}" for name, each in value.items())


def _parameters(value: Any, _: str) -> tuple[str, ...] | None:
    if not isinstance(value, dict):
        return None
    with suppress(TypeError):
        return tuple(f"{name}={json.dumps(each)}" for name, each in value.items())
    return None


def _names(value: Any, _: str) -> tuple[str, ...] | None:
    if isinstance(value, bool):
        return ("*",) if value else ()
    is_list = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
    return tuple(value) if is_list else None


_TABLE, _NAMES = "a table", "true, false or a list of names"
#: All settings, by their key in a file.
SETTINGS = {
    "python": Setting("a path or a name on PATH", _interpreter, "python"),
    "workdir": Setting("a path", _path, "current directory"),
    "env": Setting(_TABLE, _variables, "none"),
    "inherit_env": Setting(_NAMES, _names, "none"),
    "run_on": Setting(" or ".join(map(repr, RUN_ON)), _choice, "local"),
    "slurm": Setting(_TABLE, _parameters, "none"),
    "run_dir": Setting("a path", _path, "~/.sewer/runs"),
    "log_dir": Setting("a path", _path, "one below .sewer/logs"),
    "concurrent_tasks": Setting("a whole number above 0", _count, "number of processors; on Slurm all jobs"),
    "retries": Setting("a whole number", _retries, "0"),
    "limits": Setting(_TABLE, _amounts, "none"),
    "color": Setting(" or ".join(map(repr, COLOR_MODES)), _color, "auto"),
    "argo_image": Setting("a container image", _text, "none"),
    "argo_volume_claim": Setting("CLAIM or CLAIM:/PATH", _text, "none: products are artifacts"),
    "argo_namespace": Setting("a name", _text, "$ARGO_NAMESPACE"),
    "argo_host": Setting("an address", _text, "$ARGO_SERVER"),
    "argo_token_file": Setting("a path", _path, "none: $ARGO_TOKEN"),
}
