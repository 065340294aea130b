"""Registration of one attempt for an array, and its state until it is an array task."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import SlurmUnavailable, UnreadableRecord
from airflow_provider_sewer.slurm.arrays.formation import ArrayPlanner
from airflow_provider_sewer.slurm.arrays.job_array import folder_of
from airflow_provider_sewer.slurm.arrays.member_queue import MemberQueue
from airflow_provider_sewer.slurm.job import Job

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow_provider_sewer.slurm.arrays.member_queue import ArrayMember
    from airflow_provider_sewer.slurm.attempts import Attempt
    from airflow_provider_sewer.slurm.client import SlurmClient
    from airflow_provider_sewer.slurm.job_directory import JobDirectory
    from airflow_provider_sewer.slurm.job_script import JobScript


class PendingJob(NamedTuple):
    """Registered attempt that is to become an element of an array.

    :param directory: its job directory.
    :param name: its name.
    :param cluster: the client of its cluster.
    """

    directory: JobDirectory
    name: str
    cluster: SlurmClient

    @property
    def folder(self) -> str:
        """Return the folder of the arrays of its mapped task."""
        return folder_of(self.directory.path)

    def look_up(self) -> Job | None:
        """Return the job of its element, if it is one by now."""
        return next(elements_of([self]), None)

    def cancel(self, *, timeout: float) -> None:
        """Remove it from its array; if that has been submitted, cancel its element.

        :param timeout: seconds that this may take.
        :raises SlurmUnreachable: when the cluster may not have been reached; the job script then ends the job.
        """
        self.directory.try_to_cancel()
        self.abandon()
        if (job := self.look_up()) is not None:
            job.cancel(timeout=timeout)

    def abandon(self) -> None:
        """Remove it from the queue."""
        MemberQueue(self.folder).remove(self.directory.path)

    def __str__(self) -> str:
        return f"{self.name} (waiting for its array)"


class ArrayRegistration:
    """Registration of an attempt for an array, in place of a :class:`Submission`.

    :param cluster: the client of the array's cluster.
    :param attempt: the attempt.
    """

    def __init__(self, cluster: SlurmClient, attempt: Attempt) -> None:
        self._cluster = cluster
        self._attempt = attempt
        self._directory = attempt.directory
        self._folder = folder_of(attempt.directory.path)

    def register(self, script: JobScript, member: ArrayMember) -> PendingJob:
        """Register the attempt for its array.

        :raises SlurmUnavailable: when the job directory cannot be written.
        """
        now = time.time()
        try:
            self._attempt._replace(in_array=True).record_intent(self._cluster.kind, now, now)
            script.write(self._directory)
        except OSError as error:
            path = self._directory.path
            message = f"run_dir: cannot write into {path!r}: {error.strerror}"
            raise SlurmUnavailable(message, run_directory=path) from None
        MemberQueue(self._folder).register(member)
        return self._pending()

    def reattach(self) -> Job | PendingJob | None:
        """Return the job of an attempt, or the pending job; ``None`` if there will be none."""
        job = self.look_up()
        if job is None and _polled(self._folder, self._cluster).is_awaited(self._directory.path):
            return self._pending()
        return job

    def look_up(self) -> Job | None:
        """Return the job of an attempt; ``None`` if there is none now."""
        try:
            if (record := self._directory.read_job()) is not None:
                return Job.of(record["id"], record["name"], self._directory, self._cluster, record["submitted"])
        except UnreadableRecord as error:  # its array has a record of it, too
            if error.version is None and (job := self._pending().look_up()) is not None:
                return job
            raise
        return self._pending().look_up()

    def abandon(self) -> None:
        """Remove the attempt from the queue."""
        MemberQueue(self._folder).remove(self._directory.path)

    def _pending(self) -> PendingJob:
        return PendingJob(self._directory, self._attempt.name, self._cluster)


def elements_of(pending: Collection[PendingJob]) -> Iterator[Job]:
    """Return the jobs of those attempts that are elements by now."""
    planners = {each.folder: _polled(each.folder, each.cluster) for each in pending}
    for each in pending:
        outcome = planners[each.folder].outcome(each.directory.path)
        if isinstance(outcome, Job):
            yield write_element(outcome)


def write_element(job: Job) -> Job:
    """Record the job of an element in its job directory, and return it."""
    with suppress(OSError):  # its array has a record of it, too
        job.directory.write_job(job.to_data(), lasts=False)
    return job


def _polled(folder: str, cluster: SlurmClient) -> ArrayPlanner:
    planner = ArrayPlanner(folder, cluster)
    planner.poll()
    return planner
