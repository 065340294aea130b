"""Environment of a module: built from a short list instead of inherited."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.size_limits import bounded_list, invalid_reason

#: Variables that assign parts of this machine to a process: the devices that Slurm has allocated (its plugins gres/gpu
#: and gres/mps set these) or that a worker was started with, their numbering, and the number of threads.
PART_OF_MACHINE = frozenset({
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK", "OMP_NUM_THREADS",
})  # fmt: skip

#: Variables that every module inherits where they are set.
INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "TMPDIR", "TEMP", "TMP",
    "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_COLLATE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME",
    *sorted(PART_OF_MACHINE),
)  # fmt: skip

#: Further variables that programs often depend on; a user may expect that tasks see them.
OFTEN_EXPECTED = (
    "LD_LIBRARY_PATH", "PYTHONPATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", *sorted(PART_OF_MACHINE),
)  # fmt: skip

#: Variables that the runner sets: the file for the module's result, and the tag by which the runner finds all processes
#: of the module.
RESULT_FILE = "SEWER_RESULT_FILE"
ATTEMPT_ID = "SEWER_ATTEMPT_ID"

#: Variable with the same effect as the option ``-u`` of Python.
UNBUFFERED = "PYTHONUNBUFFERED"

#: Inherited only by name: Airflow's own variables (they can hold connections), and those of the Slurm job that the
#: worker itself may be running in.
_PRIVATE = re.compile(r"_*AIRFLOW|SLURM|SBATCH_|SRUN_|SEWER_")

#: State of a shell, which does not apply to another process.
_OF_THE_SHELL = frozenset({"PWD", "OLDPWD", "SHLVL", "_"})

#: The active Python environment; for a module, its own interpreter decides.
_OF_ANOTHER_INTERPRETER = frozenset({
    "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_PROMPT_MODIFIER", "CONDA_SHLVL",
    "PYTHONHOME",
})  # fmt: skip

#: Variables that are inherited only by name.
_NOT_PASSED = _OF_THE_SHELL | _OF_ANOTHER_INTERPRETER | PART_OF_MACHINE

#: ``True`` inherits all but the private ones; names are inherited in addition to :data:`INHERITED`.
Inherit = Union[bool, Sequence[str]]


def build_environment(
    given: Mapping[str, str], inherit: Inherit = False, *, source: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a module.

    :param given: variables of connection, group and task; they override inherited ones.
    :param inherit: ``True``, or names to inherit in addition to :data:`INHERITED`.
    :param source: environment to inherit from; this process's by default.
    """
    source = os.environ if source is None else source
    short_list = {name: value for name in INHERITED if (value := source.get(name)) is not None}
    return {**short_list, **inherited(inherit, source=source), **given}


def inherited(inherit: Inherit, *, source: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that are inherited in addition to the short list.

    :param inherit: ``True``, or names; ``True`` inherits all variables except private ones, those of another
        interpreter, and those of this machine: a job on another machine has other devices.
    :param source: environment to inherit from; this process's by default.
    """
    source = os.environ if source is None else source
    if inherit is True:
        return {name: value for name, value in source.items() if _passes(name)}
    return {name: source[name] for name in inherit or () if name in source}


def _passes(name: str) -> bool:
    return name not in _NOT_PASSED and not _PRIVATE.match(name)


def checked_env(env: Any, owner: str = "env") -> dict[str, str]:
    """Return ``env`` as a mapping of text to text.

    :raises InvalidTask: for a name or a value that cannot be passed to a process.
    """
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise InvalidTask(f"{owner} must be a mapping of names to values, got {type(env).__name__}", at=(owner,))
    return {_checked_name(name, owner): _checked_value(name, value, owner) for name, value in env.items()}


def checked_inherit(inherit: Any, owner: str = "inherit_env") -> Inherit | None:
    """Return ``inherit`` as ``None`` (not set), a bool or a tuple of names.

    :raises InvalidTask: for anything else.
    """
    if inherit is None or isinstance(inherit, bool):
        return inherit
    is_several = isinstance(inherit, Iterable) and not isinstance(inherit, (str, bytes, Mapping))
    names = tuple(bounded_list(owner, inherit)) if is_several else ("",)
    wrong = [index for index, name in enumerate(names) if not isinstance(name, str) or not name]
    if wrong:
        message = f"{owner} must be True, False or a list of names, got {inherit!r:.200}"
        raise InvalidTask(message, at=(owner, wrong[0]))
    return names


def _checked_name(name: Any, owner: str) -> str:
    if not isinstance(name, str) or not name or "=" in name or invalid_reason(name):
        raise InvalidTask(f"{owner}: {name!r} is not a valid name of an environment variable", at=(owner, Key(name)))
    return name


def _checked_value(name: str, value: Any, owner: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, os.PathLike)):
        message = f"{owner}: the value of {name!r} must be text or a number, got {type(value).__name__}"
        raise InvalidTask(message, at=(owner, name))
    try:
        text = os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)
    except ValueError as error:
        raise InvalidTask(f"{owner}: the value of {name!r} has no text: {error}", at=(owner, name)) from None
    if reason := invalid_reason(f"{name}={text}"):
        raise InvalidTask(f"{owner}: the value of {name!r} {reason}", at=(owner, name))
    return text
