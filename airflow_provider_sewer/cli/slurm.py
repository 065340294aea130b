"""What a person says of Slurm on the command line."""

from __future__ import annotations

import os
from typing import Any

from airflow_provider_sewer.cli.values import read_value
from airflow_provider_sewer.core.errors import InvalidTask, SewerError, unknown_name
from airflow_provider_sewer.core.slurm import RESOURCES, SlurmSettings

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
