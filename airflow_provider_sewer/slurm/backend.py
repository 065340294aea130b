"""Backends of jobs: a Slurm cluster, or this machine, with the same interface."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_sewer.slurm.job_directory import JobDirectory


class JobRef(NamedTuple):
    """Reference to a job. Slurm may give an id to another job, so the script or the name has to match as well.

    :param id: its id.
    :param name: its name when it was submitted; a site or a user may change it later.
    :param directory: path of its job directory.
    """

    id: str
    name: str
    directory: str

    @property
    def array_id(self) -> str:
        """Return the id of the array of an element; for another job its own id."""
        return self.id.partition("_")[0]

    @property
    def is_element(self) -> bool:
        """Return whether it is an element of an array."""
        return "_" in self.id

    def is_submitted_from(self, folder: str) -> bool:
        """Return whether the script in this folder is that of the job, or of the array that it is an element of."""
        return bool(folder) and (
            folder == self.directory or (self.is_element and self.name.endswith(f"-{tag_of(folder)}"))
        )


def tag_of(folder: str) -> str:
    """Return the end of the name of the array whose folder this is."""
    return sha256(folder.encode()).hexdigest()[:18]


class JobStatus(NamedTuple):
    """Status of a job.

    :param state: Slurm's state; empty where neither the controller nor accounting knows the job.
    :param reason: Slurm's reason why it waits or why it ended.
    :param node: the node or nodes it has.
    :param exit_code: exit code of its script; ``None`` if that is not known.
    :param signal: the signal that ended its script; ``None`` if there was none, or that is not known.
    :param restarts: how often it was requeued; ``None`` if that is not known.
    :param start: when it began or is expected to, in seconds since the epoch.
    :param partition: its partition; while it waits, all that it may run in, separated by commas.
    :param is_preempted: whether its preemption has begun: with GraceTime, Slurm has signalled its steps.
    """

    state: str
    reason: str = ""
    node: str = ""
    exit_code: int | None = None
    signal: int | None = None
    restarts: int | None = 0
    start: float | None = None
    partition: str = ""
    is_preempted: bool = False


#: Status of a job that neither the controller nor accounting knows.
UNKNOWN_JOB = JobStatus("")

#: Status where the array is known, and this element of it is not. It was cancelled before it began, of which Slurm
#: keeps no trace, or it has ended and was forgotten.
MISSING_ARRAY_TASK = JobStatus("CANCELLED", "not in its array")


class Submitted(NamedTuple):
    """Accepted job.

    :param id: its id.
    :param warning: the message of Slurm or the site about the accepted job, on one line; empty if there was none.
    """

    id: str
    warning: str = ""


class SlurmUnreachable(Exception):
    """The cluster did not answer; this gives no information about any job.

    :param stderr: output of the command, if it was one.
    """

    def __init__(self, reason: str, stderr: str = "") -> None:
        super().__init__(reason)
        self.stderr = stderr


class CommandNotFound(SlurmUnreachable):
    """One of Slurm's commands is not on this machine, and will not appear."""


class SubmissionRetryable(Exception):
    """The job may not have been accepted; it has to be looked for, and can be submitted again.

    :param is_unclassified: whether the reason is unknown, so that it may be permanent.
    :param is_full: whether there are too many jobs, so that there may be room for a smaller array.
    """

    def __init__(self, reason: str, *, is_unclassified: bool = False, is_full: bool = False) -> None:
        super().__init__(reason)
        self.is_unclassified = is_unclassified
        self.is_full = is_full


class JobBackend(Protocol):
    """Backend that runs jobs."""

    @property
    def kind(self) -> str:
        """Return ``slurm`` or ``local``."""

    @property
    def key(self) -> tuple[str, ...]:
        """Return the identity of this cluster and the user of its commands."""

    @property
    def slowest_submission(self) -> float:
        """Return the seconds after which a submission that was begun by a process now dead has taken effect."""

    def submit(self, directory: JobDirectory, name: str) -> Submitted:
        """Submit the script of a job directory.

        :raises SubmissionRetryable: when it is not known to be accepted, and may be submitted again later.
        :raises SlurmSubmissionRejected: when it is rejected permanently.
        """

    def find(self, name: str, directory: str) -> str | None:
        """Return the id of the job of an attempt, or of an array.

        :param name: the name that it was submitted with.
        :param directory: the folder with its script.
        :raises SlurmUnreachable: when it cannot be determined now.
        """

    def find_in_accounting(self, name: str, directory: str, *, since: float) -> str | None:
        """Return the id of an ended job of an attempt, or of an array, that the controller has forgotten; slow.

        :param since: for jobs that existed this many seconds ago or later.
        :raises SlurmUnreachable: when it cannot be determined now.
        """

    def poll(self, jobs: Collection[JobRef]) -> dict[JobRef, JobStatus]:
        """Return the status of these jobs, with as few queries as possible.

        :raises SlurmUnreachable: when it cannot be determined now.
        """

    def cancel(self, jobs: Collection[JobRef], *, timeout: float) -> dict[JobRef, str]:
        """Cancel jobs, with as few commands as possible; do nothing for those that have ended or are not known.

        :param timeout: seconds that this may take.
        :returns: for each job for which the cancellation may not have reached the cluster, the reason.
        """
