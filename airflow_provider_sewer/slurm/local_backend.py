"""Backend without Slurm: the same script in the same job directory, as a detached process of this machine.

All processes of a job inherit a variable that identifies it. A process that clears its environment and leaves the
session as well, as ``env -i setsid daemon`` does, outlives the job: only Slurm's cgroups would hold it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from airflow_provider_sewer.core.environment import ATTEMPT_ID, build_environment
from airflow_provider_sewer.execution.process_tree import TreeTerminator
from airflow_provider_sewer.slurm.backend import (
    UNKNOWN_JOB,
    JobRef,
    JobStatus,
    SubmissionRetryable,
    Submitted,
)
from airflow_provider_sewer.slurm.job_directory import JobDirectory

if TYPE_CHECKING:
    from collections.abc import Collection

# A job reads its own id from this variable, as a Slurm job does from SLURM_JOB_ID.
_LOCAL_ID = "SEWER_LOCAL_ID"

# Seconds after its last sign of life for which a job of another machine counts as running; it gives one every 5 s.
_SIGN_LASTS = 60.0

# A job that has not begun has failed if this many checks, this many seconds apart, have found no process of it.
_LOOKS, _EXECUTES = 3, 0.05

# The shell ends at once, so that the job has no parent, and does not depend on this process.
# Without `set -m`, background processes could not be interrupted.
_DETACH = 'set -m; /bin/bash "$1" >>"$2" 2>>"$3" &'


class LocalBackend:
    """Runs jobs as detached processes of this machine and this user."""

    kind = "local"
    slowest_submission = 5.0

    @property
    def key(self) -> tuple[str, ...]:
        """Return the identity of this machine and user."""
        return (self.kind, platform.node(), str(os.geteuid()))

    def submit(self, directory: JobDirectory, name: str) -> Submitted:
        """Start the script of a job directory, detached.

        :raises SubmissionRetryable: when it cannot be started now.
        """
        job_id = f"local-{uuid.uuid4().hex[:12]}"
        env = {**build_environment({ATTEMPT_ID: name}), _LOCAL_ID: job_id}
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
        environments = (_environ(process) for process in psutil.process_iter())
        return next((env[_LOCAL_ID] for env in environments if env.get(ATTEMPT_ID) == name and _LOCAL_ID in env), None)

    def find_in_accounting(self, name: str, directory: str, *, since: float) -> None:
        """Return ``None``: there is no accounting."""

    def poll(self, jobs: Collection[JobRef]) -> dict[JobRef, JobStatus]:
        """Return the status of these jobs; those of another machine are known as long as they give signs of life.

        A job that cannot be checked is left out, so that the others are known all the same.
        """
        known = {}
        for job in jobs:
            with suppress(OSError, ValueError):
                known[job] = _status(job)
        return known

    def cancel(self, jobs: Collection[JobRef], *, timeout: float) -> dict[JobRef, str]:
        """End jobs and all their processes, and return why those that run on another machine cannot be ended."""
        if len(jobs) == 1:  # without a thread, for a signal handler
            reasons = [_end(job, timeout) for job in jobs]
        else:
            with ThreadPoolExecutor() as threads:
                reasons = [*threads.map(lambda job: _end(job, timeout), jobs)]
        return {job: reason for job, reason in zip(jobs, reasons, strict=True) if reason}


def _end(job: JobRef, timeout: float) -> str:
    """End a job and all its processes; return the reason if that is not possible from here, else an empty text."""
    start = JobDirectory(job.directory).read_start()
    if start and start.node != platform.node():
        return f"job {job.id} runs on {start.node}, not on this machine ({platform.node()})"
    TreeTerminator(job.name, max(0.0, timeout - 1)).run()
    return ""


def _status(job: JobRef) -> JobStatus:
    directory = JobDirectory(job.directory)
    start = directory.read_start()
    if start is None:
        return JobStatus("PENDING", "Starting") if _is_starting(job) else JobStatus("FAILED", "ProcessGone")
    if start.node != platform.node():
        is_alive = directory.is_alive(within=_SIGN_LASTS)
        return JobStatus("RUNNING", node=start.node, start=start.time) if is_alive else UNKNOWN_JOB
    with suppress(psutil.Error):
        if _job_of(psutil.Process(start.pid)) == job.id:
            return JobStatus("RUNNING", node=start.node, start=start.time)
    if _has_processes(job):  # its script was killed, and its guard process is about to end the rest
        return JobStatus("COMPLETING", node=start.node, start=start.time)
    return JobStatus("FAILED", "ProcessGone", start.node)


def _is_starting(job: JobRef) -> bool:
    """Return whether a job that has not begun has processes.

    A process has no environment for a moment while it executes another program, as the script's shell does.
    """
    for _ in range(_LOOKS):
        if _has_processes(job):
            return True
        time.sleep(_EXECUTES)
    return JobDirectory(job.directory).read_start() is not None


def _has_processes(job: JobRef) -> bool:
    return any(_job_of(process) == job.id for process in psutil.process_iter())


def _job_of(process: psutil.Process) -> str | None:
    """Return the id of the job whose script or guard process this is; an ended process has no environment."""
    return _environ(process).get(_LOCAL_ID)


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
