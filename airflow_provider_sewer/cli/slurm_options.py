"""What a person says of Slurm on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from airflow_provider_sewer.cli.values import read_value
from airflow_provider_sewer.core.errors import InvalidTask, SewerError, unknown_name
from airflow_provider_sewer.core.slurm_settings import RESOURCES, SlurmSettings

#: What can be said of how a job is watched, besides what it asks for.
_WATCHING = (
    "poll_interval",
    "max_poll_interval",
    "requeue",
    "max_pending_time",
    "fail_on_pending_reason",
    "lost_after",
    "orphan_timeout",
)

#: The variables that sbatch takes for options (sbatch(1), INPUT ENVIRONMENT VARIABLES, 22.05 to 26.05) and that hold
#: for jobs of ``sppe`` too; for those whose names are not the option's own, the option.
_OPTION_OF = {
    "SBATCH_ACCOUNT": "",
    "SBATCH_ACCTG_FREQ": "",
    "SBATCH_BATCH": "",
    "SBATCH_BURST_BUFFER": "bb",
    "SBATCH_CLUSTER_CONSTRAINT": "",
    "SBATCH_CONSOLIDATE_SEGMENTS": "",
    "SBATCH_CONSTRAINT": "",
    "SBATCH_CONTAINER": "",
    "SBATCH_CONTAINER_ID": "",
    "SBATCH_CORE_SPEC": "",
    "SBATCH_CPU_FREQ_REQ": "cpu-freq",
    "SBATCH_CPUS_PER_GPU": "",
    "SBATCH_DELAY_BOOT": "",
    "SBATCH_DISTRIBUTION": "",
    "SBATCH_EXCLUSIVE": "",
    "SBATCH_GPU_BIND": "",
    "SBATCH_GPU_FREQ": "",
    "SBATCH_GPUS": "",
    "SBATCH_GPUS_PER_NODE": "",
    "SBATCH_GPUS_PER_SOCKET": "",
    "SBATCH_GPUS_PER_TASK": "",
    "SBATCH_GRES": "",
    "SBATCH_GRES_FLAGS": "",
    "SBATCH_HINT": "",
    "SBATCH_MEM_BIND": "",
    "SBATCH_MEM_PER_CPU": "",
    "SBATCH_MEM_PER_GPU": "",
    "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_NETWORK": "",
    "SBATCH_NO_KILL": "",
    "SBATCH_OVERCOMMIT": "",
    "SBATCH_PARTITION": "",
    "SBATCH_POWER": "",
    "SBATCH_PROFILE": "",
    "SBATCH_QOS": "",
    "SBATCH_REQ_SWITCH": "switches",
    "SBATCH_RESERVATION": "",
    "SBATCH_RUNTIME": "",
    "SBATCH_SEGMENT_SIZE": "segment",
    "SBATCH_SIGNAL": "",
    "SBATCH_SPREAD_JOB": "",
    "SBATCH_SPREAD_SEGMENTS": "",
    "SBATCH_THREAD_SPEC": "",
    "SBATCH_THREADS_PER_CORE": "",
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_TRES_BIND": "",
    "SBATCH_TRES_PER_TASK": "",
    "SBATCH_USE_MIN_NODES": "",
    "SBATCH_WAIT_ALL_NODES": "",
    "SBATCH_WCKEY": "",
}
#: Options without a value; a variable sets them by an empty text, ``yes`` or a number other than 0.
_FLAGS = frozenset({"consolidate-segments", "overcommit", "spread-job", "spread-segments", "use-min-nodes"})
#: Options whose value can be left out; an empty text does.
_VALUE_IS_OPTIONAL = frozenset({"exclusive", "no-kill"})
_SWITCH_WAIT = "SBATCH_WAIT4SWITCH"

_LOGS = "the logs of a job are in --run-dir"
_REQUEUE = "use --slurm requeue=true or requeue=false"
_CLUSTERS = "SLURM_CONF decides which cluster gets the jobs"
_ENVIRONMENT = "use --env, or inherit_env of a task"
#: Those that would take over what this package decides itself, each with what to use.
_IGNORED = {
    "SBATCH_ARRAY_INX": "each task is a job of its own",
    "SBATCH_CLUSTERS": _CLUSTERS,
    "SBATCH_ERROR": _LOGS,
    "SBATCH_EXPORT": _ENVIRONMENT,
    "SBATCH_GET_USER_ENV": _ENVIRONMENT,
    "SBATCH_INPUT": "a job has no standard input",
    "SBATCH_JOB_NAME": "use --slurm name=…",
    "SBATCH_NO_REQUEUE": _REQUEUE,
    "SBATCH_OPEN_MODE": _LOGS,
    "SBATCH_OUTPUT": _LOGS,
    "SBATCH_REQUEUE": _REQUEUE,
    "SBATCH_WAIT": "sppe waits for all jobs",
    "SLURM_CLUSTERS": _CLUSTERS,
    "SLURM_HINT": "use --slurm 'additional_parameters={\"hint\": …}', or SBATCH_HINT",
    "SLURM_JWT": "Slurm's commands authenticate as slurm.conf says",
}
#: What sbatch leaves in the environment of its own jobs, or what is no option of a job.
_OF_SBATCH = ("SBATCH_CPU_BIND", "SBATCH_MEM_BIND_", "SBATCH_DEBUG", "SBATCH_IGNORE_PBS", _SWITCH_WAIT)


class SbatchVariables(NamedTuple):
    """The variables of a user's shell that sbatch takes for options.

    :param options: options of sbatch by their long names.
    :param notes: which variables hold for jobs and which do not, a line each.
    """

    options: Mapping[str, Any]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, source: Mapping[str, str]) -> SbatchVariables:
        """Read them.

        :param source: the user's environment.
        :raises SewerError: when Slurm could not take one of them.
        """
        found = {name: value for name in _OPTION_OF if (value := _option_value(name, source)) is not None}
        options = {_option(name): value for name, value in found.items()}
        for name, value in found.items():
            try:
                SlurmSettings().with_options({_option(name): value})
            except InvalidTask as error:
                raise SewerError(f"{name}: {error.message}; correct or unset the variable") from None
        taken = ", ".join(f"{_option(name)}={source[name]} ({name})" for name in found)
        notes = [f"Options of jobs that neither a task nor --slurm gives: {taken}"] if taken else []
        return cls(options, (*notes, *(f"{name} is ignored: {why}" for name, why in _ignored(source))))


def _option(variable: str) -> str:
    return _OPTION_OF[variable] or variable.removeprefix("SBATCH_").lower().replace("_", "-")


def _option_value(variable: str, source: Mapping[str, str]) -> Any:
    """Return the value of an option that a variable stands for; ``None`` where it sets none."""
    value, option = source.get(variable), _option(variable)
    if option in _FLAGS and value is not None:
        return True if value in ("", "yes") or (value.isdecimal() and int(value)) else None
    if option in _VALUE_IS_OPTIONAL and value == "":
        return True
    if option == "switches" and value and source.get(_SWITCH_WAIT):
        return f"{value}@{source[_SWITCH_WAIT]}"
    return value or None


def _ignored(source: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(source):
        if name.startswith("SLURM_") and "SLURM_JOB_ID" in source:
            continue  # of the allocation that sppe runs in
        if name in _IGNORED:
            yield name, _IGNORED[name]
        elif name.startswith("SBATCH_") and name not in _OPTION_OF and not name.startswith(_OF_SBATCH):
            yield name, "sppe does not know it; use --slurm additional_parameters"


def slurm_settings(pairs: tuple[str, ...], run_dir: str | None) -> SlurmSettings:
    """Make settings of what was given as ``--slurm NAME=VALUE``; a value that is no JSON is text.

    :raises SewerError: when one of them cannot be used, naming it.
    """
    said: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise SewerError(f"--slurm {pair!r}: write NAME=VALUE, such as partition=gpu or mem_gb=8")
        said[name] = read_value(value)
    watching = {name: said.pop(name) for name in _WATCHING if name in said}
    for name in said:
        if name not in RESOURCES:
            known = (*RESOURCES, *_WATCHING)
            raise SewerError(f"--slurm: {unknown_name('Slurm parameter', name, known, most=len(known))}")
    try:
        return SlurmSettings.checked(slurm=said, run_dir=run_dir, folder=os.getcwd(), **watching)
    except InvalidTask as error:
        raise SewerError(f"--slurm: {error}") from None
