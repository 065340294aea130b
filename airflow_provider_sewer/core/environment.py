"""The environment a module sees: built from a short list, never simply inherited."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.process_text import invalid_reason
from airflow_provider_sewer.core.size_limits import bounded_list

#: What tells a process which part of this machine is its own: the devices that Slurm has given to an allocation (its
#: plugins gres/gpu and gres/mps set these) or a worker was started with, how they are numbered, and how many threads.
PART_OF_MACHINE = frozenset({
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "OMP_NUM_THREADS",
})  # fmt: skip

#: The variables every module inherits where they are set.
INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "TMPDIR", "TEMP", "TMP",
    "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_COLLATE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME",
    *sorted(PART_OF_MACHINE),
)  # fmt: skip

#: What a module is given by its runner: the file for its result, and the mark by which everything it
#: starts is found again.
RESULT_FILE = "SEWER_RESULT_FILE"
ATTEMPT_ID = "SEWER_ATTEMPT_ID"

#: What never passes unless it is named: Airflow's own variables (they can hold connections) and the
#: Slurm job that the worker itself may be running in.
_PRIVATE = re.compile(r"_*AIRFLOW|SLURM|SBATCH_|SRUN_|SEWER_")

#: What a shell notes of itself, which is not true of another process.
_OF_THE_SHELL = frozenset({"PWD", "OLDPWD", "SHLVL", "_"})

#: What tells a process which Python environment is active. A module's own interpreter decides that.
_OF_ANOTHER_INTERPRETER = frozenset({
    "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_PROMPT_MODIFIER", "CONDA_SHLVL",
    "PYTHONHOME",
})  # fmt: skip

#: What passes only by name.
_NOT_PASSED = _OF_THE_SHELL | _OF_ANOTHER_INTERPRETER | PART_OF_MACHINE

#: ``True`` inherits all but the private ones; names are inherited on top of :data:`INHERITED`.
Inherit = Union[bool, Sequence[str]]


def build_environment(
    given: Mapping[str, str], inherit: Inherit = False, *, source: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Build the environment of a module.

    :param given: what connection, group and task give; it wins over what is inherited.
    :param inherit: ``True``, or names to inherit on top of :data:`INHERITED`.
    :param source: what to inherit from; this process's environment by default.
    """
    source = os.environ if source is None else source
    short_list = {name: value for name in INHERITED if (value := source.get(name)) is not None}
    return {**short_list, **inherited(inherit, source=source), **given}


def inherited(inherit: Inherit, *, source: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what is inherited beyond the short list.

    :param inherit: ``True``, or names; ``True`` inherits all but what is private, what is of another interpreter, and
        what is of this machine only: a job on another machine has devices of its own.
    :param source: what to inherit from; this process's environment by default.
    """
    source = os.environ if source is None else source
    if inherit is True:
        return {name: value for name, value in source.items() if _passes(name)}
    return {name: source[name] for name in inherit or () if name in source}


def _passes(name: str) -> bool:
    return name not in _NOT_PASSED and not _PRIVATE.match(name)


def checked_env(env: Any, owner: str = "env") -> dict[str, str]:
    """Return ``env`` as text to text, or say which variable cannot stand in an environment.

    :raises InvalidTask: for a name or a value that no process can be given.
    """
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise InvalidTask(f"{owner}: a mapping of names to values is needed, not {type(env).__name__}", at=(owner,))
    return {_checked_name(name, owner): _checked_value(name, value, owner) for name, value in env.items()}


def checked_inherit(inherit: Any, owner: str = "inherit_env") -> Inherit | None:
    """Return ``inherit`` as ``None`` (not said), a bool or a tuple of names.

    :raises InvalidTask: for anything else.
    """
    if inherit is None or isinstance(inherit, bool):
        return inherit
    is_several = isinstance(inherit, Iterable) and not isinstance(inherit, (str, bytes, Mapping))
    names = tuple(bounded_list(owner, inherit)) if is_several else ("",)
    wrong = [at for at, name in enumerate(names) if not isinstance(name, str) or not name]
    if wrong:
        said = f"{owner}: True, False or a list of names is needed, not {inherit!r:.200}"
        raise InvalidTask(said, at=(owner, wrong[0]))
    return names


def _checked_name(name: Any, owner: str) -> str:
    if not isinstance(name, str) or not name or "=" in name or invalid_reason(name):
        raise InvalidTask(f"{owner}: {name!r} is no name of an environment variable", at=(owner, Key(name)))
    return name


def _checked_value(name: str, value: Any, owner: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, os.PathLike)):
        said = f"{owner}: the value of {name!r} is {type(value).__name__}; give text or a number"
        raise InvalidTask(said, at=(owner, name))
    try:
        text = os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
    except ValueError as error:
        raise InvalidTask(f"{owner}: the value of {name!r} has no text: {error}", at=(owner, name)) from None
    if why := invalid_reason(f"{name}={text}"):
        raise InvalidTask(f"{owner}: the value of {name!r} {why}", at=(owner, name))
    return text
