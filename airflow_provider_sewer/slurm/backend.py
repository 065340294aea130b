"""What can run jobs: a Slurm cluster, or this machine. Both are asked the same questions."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_sewer.slurm.job_directory import JobDirectory


class JobRef(NamedTuple):
    """Identify a job. Slurm may give an id to another job, so the script or the name has to match as well.

    :param id: its id.
    :param name: its name when it was submitted; a site or a user may change it later.
    :param directory: path of its run directory.
    """

    id: str
    name: str
    directory: str

    @property
    def array_id(self) -> str:
        """Return the id of the array of an element; that of another job as it is."""
        return self.id.partition("_")[0]

    @property
    def is_element(self) -> bool:
        """Tell whether it is an element of an array."""
        return "_" in self.id

    def is_submitted_from(self, folder: str) -> bool:
        """Tell whether the script in this folder is that of the job, or of the array that it is an element of."""
        return bool(folder) and (
            folder == self.directory or (self.is_element and self.name.endswith(f"-{tag_of(folder)}"))
        )


def tag_of(folder: str) -> str:
    """Return the end of the name of the array whose folder this is."""
    return sha256(folder.encode()).hexdigest()[:18]


class JobStatus(NamedTuple):
    """What was answered when a job was asked for.

    :param state: Slurm's word for it; empty where nobody knows the job.
    :param reason: Slurm's word for why it waits or why it ended.
    :param node: the node or nodes it has.
    :param exit_code: what its script exited with; ``None`` if that is not known.
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


#: Everybody was asked, and nobody knows the job.
UNKNOWN_JOB = JobStatus("")

#: The array is known, and this element of it is not: it was cancelled before it began, of which Slurm keeps no trace,
#: or it has ended and was forgotten.
MISSING_ARRAY_TASK = JobStatus("CANCELLED", "not in its array")


class Submitted(NamedTuple):
    """A job that was taken.

    :param id: its id.
    :param warning: the message of Slurm or the site about the accepted job, on one line; empty if there was none.
    """

    id: str
    warning: str = ""


class SlurmUnreachable(Exception):
    """The cluster could not be asked; that says nothing about any job.

    :param stderr: what the command has printed, if it was one.
    """

    def __init__(self, why: str, stderr: str = "") -> None:
        super().__init__(why)
        self.stderr = stderr


class CommandNotFound(SlurmUnreachable):
    """One of Slurm's commands is not on this machine; waiting does not help."""


class SubmissionRetryable(Exception):
    """The job was not taken, or perhaps it was; it has to be looked for, and can be submitted again.

    :param is_strange: whether nobody knows what the reason is, so that it need not ever pass.
    :param is_full: whether there are too many jobs, so that there may be room for fewer.
    """

    def __init__(self, why: str, *, is_unclassified: bool = False, is_full: bool = False) -> None:
        super().__init__(why)
        self.is_unclassified = is_unclassified
        self.is_full = is_full


class JobBackend(Protocol):
    """Where jobs run."""

    @property
    def kind(self) -> str:
        """Return ``slurm`` or ``local``."""

    @property
    def key(self) -> tuple[str, ...]:
        """Return what tells this cluster, and the user it is asked by, from others."""

    @property
    def slowest_submission(self) -> float:
        """Return the seconds after which a submission that was begun by a process now dead has had its effect."""

    def submit(self, directory: JobDirectory, name: str) -> Submitted:
        """Submit the script of a run directory.

        :raises Busy: when it is not known to have been taken, and may be submitted again later.
        :raises SlurmSubmitRefused: when it will never be taken.
        """

    def find(self, name: str, directory: str) -> str | None:
        """Return the id of the job of an attempt, or of an array.

        :param name: the name that it was submitted with.
        :param directory: the folder with its script.
        :raises NoAnswer: when that cannot be known now.
        """

    def find_in_accounting(self, name: str, directory: str, *, since: float) -> str | None:
        """Return the id of the job of an attempt, or of an array, that is over and was forgotten; not a quick query.

        :param since: for jobs that were there this many seconds ago or later.
        :raises NoAnswer: when that cannot be known now.
        """

    def poll(self, jobs: Collection[JobRef]) -> dict[JobRef, JobStatus]:
        """Return what is known of these jobs, with as few queries as possible.

        :raises NoAnswer: when that cannot be known now.
        """

    def cancel(self, job: JobRef, *, timeout: float) -> None:
        """Have a job ended; one that has ended or is not known is none of our business.

        :raises NoAnswer: when it is not known whether that was heard.
        """
