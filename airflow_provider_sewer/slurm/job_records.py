"""Records in a job directory, as values: the start, the end and the usage of the job, and its monitor."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.execution.task_usage import TaskUsage

_NO_NUMBERS: Mapping[str, float] = MappingProxyType({})

#: Exit class of a job that succeeded; for others it is a key of :data:`~airflow_provider_sewer.core.errors.KEYS`.
SUCCESS = "success"
#: Sources of a usage: the measurements of the job script, and Slurm's accounting.
MEASURED, ACCOUNTED = "job", "accounting"


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


class JobUsage(NamedTuple):
    """Requested and used resources of one attempt; times in seconds since the epoch.

    :param name: name of its job.
    :param dag_id: the DAG, or the workflow of ``sppe``.
    :param run_id: the DAG run, or the run of ``sppe``.
    :param task: the task; of a mapped task of Airflow, the mapped task.
    :param map_index: the index of a mapped task instance, else -1.
    :param job_id: id of its job; empty if it was not submitted.
    :param exit_class: :data:`SUCCESS` or the key of an error; empty until its end is known.
    :param node: the node that it ran on; the first of several.
    :param waited: seconds from its submission to its start, or to its end where it did not start.
    :param started: when it started.
    :param ended: when it ended.
    :param requested: see :func:`~airflow_provider_sewer.slurm.request.request_of`.
    :param used: see :func:`~airflow_provider_sewer.slurm.usage.read_usage`.
    :param source: :data:`MEASURED` or :data:`ACCOUNTED`.
    """

    name: str = ""
    dag_id: str = ""
    run_id: str = ""
    task: str = ""
    map_index: int = -1
    job_id: str = ""
    exit_class: str = ""
    node: str = ""
    waited: float | None = None
    started: float | None = None
    ended: float | None = None
    requested: Mapping[str, float] = _NO_NUMBERS
    used: Mapping[str, float] = _NO_NUMBERS
    source: str = MEASURED

    @classmethod
    def of_values(cls, values: Sequence[Any]) -> JobUsage:
        """Return the usage with stored values, without those that are not amounts where they should be."""
        usage = cls(*values)
        return usage._replace(
            waited=_number(usage.waited),
            started=_number(usage.started),
            ended=_number(usage.ended),
            requested={name: amount for name, amount in _numbers(usage.requested).items() if amount},
            used=_numbers(usage.used),
        )

    def update(self, usage: TaskUsage) -> TaskUsage:
        """Return a usage with the figures, the node and the exit class of this one."""
        return usage._replace(used=self.used, requested=self.requested, node=self.node, exit_class=self.exit_class)


def _numbers(fields: Mapping[str, Any]) -> dict[str, float]:
    return {name: number for name, value in fields.items() if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 2**63 else None
