"""Jobs without Slurm: the same script in the same run directory, as a detached process of this machine.

A job is known by a variable that all its processes inherit. One that takes its environment away and leaves
the session as well, as ``env -i setsid daemon`` does, outlives it: nothing short of Slurm's cgroups holds it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from airflow_provider_sewer.core.environment import ATTEMPT_ID, build_environment
from airflow_provider_sewer.execution.process_tree import TreeTerminator
from airflow_provider_sewer.slurm.backend import (
    UNKNOWN_JOB,
    JobRef,
    JobStatus,
    SlurmUnreachable,
    SubmissionRetryable,
    Submitted,
)
from airflow_provider_sewer.slurm.job_directory import JobDirectory

if TYPE_CHECKING:
    from collections.abc import Collection

# By this a job knows its own id, as a Slurm job does by SLURM_JOB_ID.
_LOCAL_ID = "SEWER_LOCAL_ID"

# Seconds after its last sign of life for which a job of another machine counts as running; it gives one every 5 s.
_SIGN_LASTS = 60.0

# A job that has not begun is gone if so many looks, so many seconds apart, have found no process of it.
_LOOKS, _EXECUTES = 3, 0.05

# The shell is gone at once, so that the job is nobody's child, and what becomes of this process is nothing to it.
# Without `set -m`, what is put into the background could not be interrupted.
_DETACH = 'set -m; /bin/bash "$1" >>"$2" 2>>"$3" &'


class LocalBackend:
    """Runs jobs as detached processes of this machine and this user."""

    kind = "local"
    slowest_submission = 5.0

    @property
    def key(self) -> tuple[str, ...]:
        """Return what tells this machine from others."""
        return (self.kind, platform.node(), str(os.geteuid()))

    def submit(self, directory: JobDirectory, name: str) -> Submitted:
        """Start the script of a run directory, detached.

        :raises Busy: when it cannot be started now.
        """
        job_id = f"local-{uuid.uuid4().hex[:12]}"
        env = build_environment({ATTEMPT_ID: name, _LOCAL_ID: job_id})
        try:
            subprocess.run(
                ["/bin/bash", "-c", _DETACH, "bash", directory.script, directory.stdout, directory.stderr],
                env=env, cwd=directory.path, check=True, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            raise SubmissionRetryable(f"cannot start the job script: {error}", is_unclassified=True) from None
        return Submitted(job_id)

    def find(self, name: str, directory: str) -> str | None:  # noqa: ARG002 - one place
        """Return the id of the running job of this name."""
        for process in psutil.process_iter():
            env = _environ(process)
            if env.get(ATTEMPT_ID) == name and _LOCAL_ID in env:
                return env[_LOCAL_ID]
        return None

    def find_in_accounting(self, name: str, directory: str, *, since: float) -> None:
        """There is no accounting."""

    def poll(self, jobs: Collection[JobRef]) -> dict[JobRef, JobStatus]:
        """Return what is known of these jobs; those of another machine are known as long as they give signs of life.

        A job that cannot be looked at is left out, so that the others are known all the same.
        """
        known = {}
        for job in jobs:
            with suppress(OSError, ValueError):
                known[job] = _sighting(job)
        return known

    def cancel(self, job: JobRef, *, timeout: float) -> None:
        """End a job and all it has started.

        :raises NoAnswer: when it runs on another machine.
        """
        start = JobDirectory(job.directory).read_start()
        if start and start.node != platform.node():
            raise SlurmUnreachable(f"job {job.id} runs on {start.node}, and this is {platform.node()}")
        TreeTerminator(job.name, max(0.0, timeout - 1)).run()


def _sighting(job: JobRef) -> JobStatus:
    directory = JobDirectory(job.directory)
    start = directory.read_start()
    if start is None:
        return JobStatus("PENDING", "Starting") if _is_starting(job) else JobStatus("FAILED", "ProcessGone")
    if start.node != platform.node():
        is_alive = directory.is_alive(within=_SIGN_LASTS)
        return JobStatus("RUNNING", node=start.node, start=start.time) if is_alive else UNKNOWN_JOB
    with suppress(psutil.Error):
        if _is_of(job, psutil.Process(start.pid)):
            return JobStatus("RUNNING", node=start.node, start=start.time)
    if _has_processes(job):  # its script was killed, and its watcher is about to end what is left
        return JobStatus("COMPLETING", node=start.node, start=start.time)
    return JobStatus("FAILED", "ProcessGone", start.node)


def _is_starting(job: JobRef) -> bool:
    """Tell whether a job that has not begun has processes.

    A process has no environment for a moment while it executes another program, as the script's shell does.
    """
    for _ in range(_LOOKS):
        if _has_processes(job):
            return True
        time.sleep(_EXECUTES)
    return JobDirectory(job.directory).read_start() is not None


def _has_processes(job: JobRef) -> bool:
    return any(_is_of(job, process) for process in psutil.process_iter())


def _is_of(job: JobRef, process: psutil.Process) -> bool:
    """Tell whether this is the script of a job, or its watcher; the dead have no environment."""
    return _environ(process).get(_LOCAL_ID) == job.id


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
