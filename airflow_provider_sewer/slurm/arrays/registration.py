"""Registration of one attempt for an array, and its state until it is an array task."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import UnreadableRecord
from airflow_provider_sewer.slurm.arrays.array_folder import ArrayFolder
from airflow_provider_sewer.slurm.arrays.job_array import folder_of
from airflow_provider_sewer.slurm.arrays.member_queue import MemberQueue
from airflow_provider_sewer.slurm.job import Job, PendingJob

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow_provider_sewer.slurm.arrays.member_queue import ArrayMember
    from airflow_provider_sewer.slurm.attempts import Attempt
    from airflow_provider_sewer.slurm.client import SlurmClient


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

    def register(self, member: ArrayMember) -> PendingJob:
        """Register the attempt, whose script is written, for its array.

        :raises SlurmUnavailable: when the job directory cannot be written.
        """
        now = time.time()
        with self._directory.writing():
            self._attempt._replace(in_array=True).record_intent(self._cluster.kind, now, now)
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
            if error.version is None and (job := self._element()) is not None:
                return job
            raise
        return self._element()

    def _element(self) -> Job | None:
        return next(elements_of([self._pending()]), None)

    def _pending(self) -> PendingJob:
        return PendingJob(self._directory, self._attempt.name, self._cluster)


def elements_of(pending: Collection[PendingJob]) -> Iterator[Job]:
    """Return the jobs of those attempts that are array tasks by now."""
    clusters = {folder_of(each.directory.path): each.cluster for each in pending}
    folders = {path: _polled(path, cluster) for path, cluster in clusters.items()}
    for each in pending:
        outcome = folders[folder_of(each.directory.path)].outcome(each.directory.path)
        if isinstance(outcome, Job):
            yield write_element(outcome)


def withdraw(pending: PendingJob) -> None:
    """Remove an attempt from the queue, so that it becomes no array task, unless it is one already."""
    MemberQueue(folder_of(pending.directory.path)).remove(pending.directory.path)


def write_element(job: Job) -> Job:
    """Record the job of an element in its job directory, and return it."""
    with suppress(OSError):  # its array has a record of it, too
        job.directory.write_job(job.to_dict(), lasts=False)
    return job


def _polled(path: str, cluster: SlurmClient) -> ArrayFolder:
    folder = ArrayFolder(path, cluster)
    folder.poll()
    return folder
