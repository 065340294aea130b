"""Environment variables that select the programs of an interpreter's environment, as its activate script does."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.core.execution_settings import ExecutionSettings

#: The variables that select the active environment.
ACTIVE = ("PATH", "VIRTUAL_ENV", "CONDA_PREFIX")

#: Folders of the system, which hold more than an interpreter and its scripts. ``activate.bash`` has the same ones.
_OF_THE_SYSTEM = frozenset({"/bin", "/usr/bin", "/usr/local/bin"})


def interpreter_variables(env: Collection[str], inherit: Inherit | None) -> list[str]:
    """Return the variables of :data:`ACTIVE` that follow the interpreter: those that the task does not set itself.

    :param env: names of the variables that the task sets.
    :param inherit: variables that it inherits. PATH has no effect here, as it is inherited anyway.
    """
    named = set(inherit) - {"PATH"} if inherit and inherit is not True else set()
    return [name for name in ACTIVE if name not in env and name not in named]


def activated(env: Mapping[str, str], python: str, settings: ExecutionSettings) -> dict[str, str]:
    """Return environment variables with the interpreter's environment activated.

    :param env: the inherited and the set variables.
    :param python: absolute path of the interpreter.
    :param settings: the settings of the task.
    """
    folder = _folder_of_programs(python)
    prefix = os.path.dirname(folder)
    fitting = {
        "PATH": _path_from(folder, python, env.get("PATH") or os.defpath),
        "VIRTUAL_ENV": prefix if _is_venv(prefix) else None,
        "CONDA_PREFIX": prefix if os.path.isdir(os.path.join(prefix, "conda-meta")) else None,
    }
    names = interpreter_variables(settings.env, settings.inherit_env)
    others = {name: value for name, value in env.items() if name not in names}
    return {**others, **{name: value for name in names if (value := fitting[name]) is not None}}


def _folder_of_programs(python: str) -> str:
    """Return the folder of an interpreter's programs; as by Python, a link outside of an environment is followed."""
    folder = os.path.dirname(python)
    return folder if _is_venv(os.path.dirname(folder)) else os.path.dirname(os.path.realpath(python))


def _is_venv(prefix: str) -> bool:
    return os.path.isfile(os.path.join(prefix, "pyvenv.cfg"))


def _path_from(folder: str, python: str, path: str) -> str:
    """Return a PATH that begins with a folder.

    A folder of the system stays where it is in PATH, unless another interpreter comes before it.
    """
    entries = path.split(os.pathsep)
    if folder in entries and folder in _OF_THE_SYSTEM:
        found = filter(None, (shutil.which(name, path=path) for name in ("python", "python3")))
        if all(os.path.realpath(each) == os.path.realpath(python) for each in found):
            return path
    return os.pathsep.join([folder, *(entry for entry in entries if entry != folder)])
