"""Records in a job directory, as values: the start and the end of the job, and its monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class StartRecord(NamedTuple):
    """Record that the job script writes when it begins.

    :param restart: how often Slurm had requeued the job.
    :param node: the node it runs on.
    :param pid: its process there.
    :param time: seconds since the epoch.
    """

    restart: int
    node: str
    pid: int
    time: float


class ExitRecord(NamedTuple):
    """Record that the job script writes when it ends.

    :param restart: how often Slurm had requeued the job.
    :param node: the node it ran on.
    :param phase: how far it got: ``setup``, ``module`` or ``teardown``.
    :param exit_code: exit code of the module, as in a shell: 128 and more for a signal.
    :param asked: the signal by which the job was asked to end before the module had, if any.
    :param start: seconds since the epoch.
    :param end: seconds since the epoch.
    :param stdout: bytes of stdout so far.
    :param stderr: bytes of stderr so far.
    :param module_stdout: which bytes of stdout the module wrote: from and to.
    :param result: bytes of the result file; -1 if there is none.
    :param cpus: how many CPUs Slurm had given it; 0 if that is not known.
    :param unsignalled: whether the script has ruled out that Slurm had signalled the module.
    :param is_torn_down: whether `teardown` is over; the module's end is recorded before that, too.
    """

    restart: int
    node: str
    phase: str
    exit_code: int
    asked: str | None
    start: float
    end: float
    stdout: int
    stderr: int
    module_stdout: Sequence[int]
    result: int
    cpus: int
    unsignalled: bool
    is_torn_down: bool

    @property
    def is_success(self) -> bool:
        """Return whether the module ran to its own end and exited with 0."""
        return self.phase == "teardown" and self.exit_code == 0 and self.asked is None

    @property
    def is_sure_success(self) -> bool:
        """Return whether this is a success in any state of the job: no signal of Slurm has ended the module."""
        return self.is_success and self.unsignalled

    @property
    def is_final(self) -> bool:
        """Return whether the module has ended by itself, so that Slurm has no reason to requeue the job."""
        return self.is_sure_success or (self.asked is None and not self.is_success)


class Monitor(NamedTuple):
    """Process that monitors a job.

    :param token: differs for each process and each time.
    :param try_number: Airflow's number of the try that the process works for; 0 where tries have no numbers.
    """

    token: str
    try_number: int
