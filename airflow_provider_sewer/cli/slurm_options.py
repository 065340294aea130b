"""Slurm options of the command line and the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.cli.options import read_value
from airflow_provider_sewer.core.errors import InvalidTask, SewerError, unknown_name
from airflow_provider_sewer.core.slurm_parameters import RESOURCES
from airflow_provider_sewer.core.slurm_settings import SlurmSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Parameters for monitoring a job; the others are passed to sbatch.
_MONITORING = (
    "poll_interval",
    "max_poll_interval",
    "requeue",
    "max_pending_time",
    "fail_on_pending_reason",
    "lost_after",
    "orphan_timeout",
)

#: Environment variables of sbatch (sbatch(1), INPUT ENVIRONMENT VARIABLES, 22.05 to 26.05) that apply to jobs of
#: ``sppe`` too; with the option, where its name differs from that of the variable.
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
#: Options without a value; a variable sets them by an empty string, ``yes`` or a number other than 0.
_FLAGS = frozenset({"consolidate-segments", "overcommit", "spread-job", "spread-segments", "use-min-nodes"})
#: Options whose value is optional; an empty string leaves it out.
_VALUE_IS_OPTIONAL = frozenset({"exclusive", "no-kill"})
_SWITCH_WAIT = "SBATCH_WAIT4SWITCH"

_LOGS = "the logs of a job are in --run-dir"
_REQUEUE = "use --slurm requeue=true or requeue=false"
_CLUSTERS = "SLURM_CONF selects the cluster"
_ENVIRONMENT = "use --env, or a task's inherit_env"
#: Variables that conflict with options set by this package, each with the alternative.
_IGNORED = {
    "SBATCH_ARRAY_INX": "each task is a separate job",
    "SBATCH_CLUSTERS": _CLUSTERS,
    "SBATCH_ERROR": _LOGS,
    "SBATCH_EXPORT": _ENVIRONMENT,
    "SBATCH_GET_USER_ENV": _ENVIRONMENT,
    "SBATCH_INPUT": "jobs have no standard input",
    "SBATCH_JOB_NAME": "use --slurm name=…",
    "SBATCH_NO_REQUEUE": _REQUEUE,
    "SBATCH_OPEN_MODE": _LOGS,
    "SBATCH_OUTPUT": _LOGS,
    "SBATCH_REQUEUE": _REQUEUE,
    "SBATCH_WAIT": "sppe waits for all jobs",
    "SLURM_CLUSTERS": _CLUSTERS,
    "SLURM_HINT": "use --slurm 'additional_parameters={\"hint\": …}', or SBATCH_HINT",
    "SLURM_JWT": "Slurm's commands authenticate as configured in slurm.conf",
}
#: Variables that sbatch sets in its jobs, or that are not options of a job.
_OF_SBATCH = ("SBATCH_CPU_BIND", "SBATCH_MEM_BIND_", "SBATCH_DEBUG", "SBATCH_IGNORE_PBS", _SWITCH_WAIT)


class SbatchVariables(NamedTuple):
    """Options of sbatch from environment variables.

    :param options: options by their long names.
    :param notes: one line about the variables that apply to jobs, one for each that is ignored.
    """

    options: Mapping[str, Any]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, source: Mapping[str, str]) -> SbatchVariables:
        """Read the variables.

        :param source: the user's environment.
        :raises SewerError: when a value is not valid for its option.
        """
        found = {name: value for name in _OPTION_OF if (value := _option_value(name, source)) is not None}
        options = {_option(name): value for name, value in found.items()}
        for name, value in found.items():
            try:
                SlurmSettings().with_options({_option(name): value})
            except InvalidTask as error:
                raise SewerError(f"{name}: {error.message}; correct or unset the variable") from None
        applied = ", ".join(f"{_option(name)}={source[name]} ({name})" for name in found)
        notes = [f"Options from the environment, overridden by tasks and --slurm: {applied}"] if applied else []
        return cls(options, (*notes, *(f"{name} is ignored: {reason}" for name, reason in _ignored(source))))


def _option(variable: str) -> str:
    return _OPTION_OF[variable] or variable.removeprefix("SBATCH_").lower().replace("_", "-")


def _option_value(variable: str, source: Mapping[str, str]) -> Any:
    """Return the value that a variable sets for its option, or ``None``."""
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
            yield name, "not known to sppe; use --slurm additional_parameters"


def slurm_settings(pairs: tuple[str, ...], run_dir: str | None) -> SlurmSettings:
    """Return the settings given as ``--slurm NAME=VALUE``; a value that is not JSON is a string.

    :raises SewerError: when a parameter or its value is not valid.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise SewerError(f"--slurm {pair!r}: write NAME=VALUE, such as partition=gpu or mem_gb=8")
        values[name] = read_value(value)
    monitoring = {name: values.pop(name) for name in _MONITORING if name in values}
    for name in values:
        if name not in RESOURCES:
            known = (*RESOURCES, *_MONITORING)
            raise SewerError(f"--slurm: {unknown_name('Slurm parameter', name, known, most=len(known))}")
    try:
        return SlurmSettings.checked(slurm=values, run_dir=run_dir, folder=os.getcwd(), **monitoring)
    except InvalidTask as error:
        raise SewerError(f"--slurm: {error}") from None
