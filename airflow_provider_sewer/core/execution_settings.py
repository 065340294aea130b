"""Settings of the process of a task: interpreter, environment, working directory.

The four settings are resolved one by one, in this order: the task's own field, its ``.run(…)``, the command line or
the TaskGroup, the connection, the default. Environments are merged, variable by variable, in the same order.
"""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from airflow_provider_sewer.core.environment import Inherit, checked_env, checked_inherit
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.size_limits import invalid_reason

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING: Mapping[str, str] = MappingProxyType({})


class ExecutionSettings(NamedTuple):
    """Settings given in one place; ``None`` where a setting is not given there.

    :param python: path of an interpreter, or a name to look up on PATH.
    :param env: environment variables to set.
    :param inherit_env: ``True``, ``False``, or names to inherit beyond the short list.
    :param workdir: path of the working directory.
    """

    python: Optional[str] = None
    env: Mapping[str, str] = _NOTHING
    inherit_env: Optional[Inherit] = None
    workdir: Optional[str] = None

    @classmethod
    def checked(
        cls, *, python: Any = None, env: Any = None, inherit_env: Any = None, workdir: Any = None, folder: str = ""
    ) -> ExecutionSettings:
        """Return settings of checked values.

        :param folder: base of relative paths; empty to keep them relative.
        :raises InvalidTask: when a value is not valid, naming the setting.
        """
        if python is None and env is None and inherit_env is None and workdir is None:
            return UNSET
        return cls(
            python=_interpreter(python, folder),
            env=checked_env(env),
            inherit_env=checked_inherit(inherit_env),
            workdir=checked_path("workdir", workdir, folder),
        )

    def with_fallback(self, other: ExecutionSettings) -> ExecutionSettings:
        """Return these settings, completed by ``other`` where they are not set."""
        if other == UNSET:
            return self
        return ExecutionSettings(
            python=self.python if self.python is not None else other.python,
            env={**other.env, **self.env},
            inherit_env=self.inherit_env if self.inherit_env is not None else other.inherit_env,
            workdir=self.workdir if self.workdir is not None else other.workdir,
        )

    def map_paths(self, change: Any) -> ExecutionSettings:
        """Return these settings with ``change`` applied to the paths (not to a bare interpreter name)."""
        python = self.python
        if python is None and self.workdir is None:
            return self
        return self._replace(
            python=change(python) if python and os.sep in python else python,
            workdir=change(self.workdir) if self.workdir else self.workdir,
        )


#: Settings of a place that gives none; shared by most tasks.
UNSET = ExecutionSettings()


def resolve_relative(folder: str, path: str) -> str:
    """Return a relative ``path`` joined to ``folder``; ``~``, templates and absolute paths stay."""
    return path if not folder or path.startswith(("/", "~", "{{", "{%")) else os.path.join(folder, path)


def checked_path(field: str, value: Any, folder: str) -> str | None:
    """Return a path as text, joined to ``folder`` if it is relative; ``None`` stays ``None``.

    :raises InvalidTask: when it is not a valid path, naming the field.
    """
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or invalid_reason(path):
        raise InvalidTask(f"{field} must be a path, got {value!r:.200}", at=(field,))
    return resolve_relative(folder, path)


def _interpreter(python: Any, folder: str) -> str | None:
    path = checked_path("python", python, "")
    return resolve_relative(folder, path) if path and os.sep in path else path
