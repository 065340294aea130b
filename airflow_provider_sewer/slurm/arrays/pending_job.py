"""The way of one attempt into the queue as an element of an array, and what it is until it is there."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import SlurmUnavailable, UnreadableRecord
from airflow_provider_sewer.slurm.arrays.job_array import folder_of
from airflow_provider_sewer.slurm.arrays.member_queue import MemberQueue
from airflow_provider_sewer.slurm.arrays.planner import ArrayPlanner
from airflow_provider_sewer.slurm.job import Job

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from airflow_provider_sewer.slurm.arrays.member_queue import ArrayMember
    from airflow_provider_sewer.slurm.attempts import Attempt
    from airflow_provider_sewer.slurm.client import SlurmClient
    from airflow_provider_sewer.slurm.job_directory import JobDirectory
    from airflow_provider_sewer.slurm.job_script import JobScript


class PendingJob(NamedTuple):
    """An attempt that has registered, and is to become an element of an array.

    :param directory: its run directory.
    :param name: its name.
    :param cluster: where its array is to run.
    """

    directory: JobDirectory
    name: str
    cluster: SlurmClient

    @property
    def folder(self) -> str:
        """Return the folder of the arrays of its mapped task."""
        return folder_of(self.directory.path)

    def look_up(self) -> Job | None:
        """Return the element that it has become, if it is one by now."""
        return next(elements_of([self]), None)

    def cancel(self, *, timeout: float) -> None:
        """Have it left out of its array; if that has been sent, have its element ended.

        :param timeout: seconds that this may take.
        :raises NoAnswer: when the cluster was perhaps not reached; the job script sees to it then.
        """
        self.directory.try_to_cancel()
        self.abandon()
        if (job := self.look_up()) is not None:
            job.cancel(timeout=timeout)

    def abandon(self) -> None:
        """Have it wait no longer."""
        MemberQueue(self.folder).remove(self.directory.path)

    def __str__(self) -> str:
        return f"{self.name}, which waits for its array"


class ArrayRegistration:
    """The place of an attempt in an array; where others have their :class:`Submission`.

    :param cluster: where the array is to run.
    :param attempt: the attempt.
    """

    def __init__(self, cluster: SlurmClient, attempt: Attempt) -> None:
        self._cluster = cluster
        self._attempt = attempt
        self._directory = attempt.directory
        self._folder = folder_of(attempt.directory.path)

    def register(self, script: JobScript, member: ArrayMember) -> PendingJob:
        """Have the attempt wait for its array.

        :raises SlurmUnavailable: when the run directory cannot be written.
        """
        now = time.time()
        try:
            self._attempt._replace(in_array=True).note_intent(self._cluster.kind, now, now)
            script.write(self._directory)
        except OSError as error:
            path = self._directory.path
            message = f"run_dir: cannot write into {path!r}: {error.strerror}"
            raise SlurmUnavailable(message, run_directory=path) from None
        MemberQueue(self._folder).register(member)
        return self._waiting()

    def reattach(self) -> Job | PendingJob | None:
        """Return the job of an attempt, or that it still waits; ``None`` if nothing comes of it."""
        job = self.look_up()
        if job is None and _looked(self._folder, self._cluster).is_awaited(self._directory.path):
            return self._waiting()
        return job

    def look_up(self) -> Job | None:
        """Return the job of an attempt; ``None`` if there is none now."""
        try:
            if (noted := self._directory.read_job()) is not None:
                return Job.of(noted["id"], noted["name"], self._directory, self._cluster, noted["submitted"])
        except UnreadableRecord as error:  # its array knows it, too
            if error.version is None and (job := self._waiting().look_up()) is not None:
                return job
            raise
        return self._waiting().look_up()

    def abandon(self) -> None:
        """Have the attempt wait no longer."""
        MemberQueue(self._folder).remove(self._directory.path)

    def _waiting(self) -> PendingJob:
        return PendingJob(self._directory, self._attempt.name, self._cluster)


def elements_of(waiting: Collection[PendingJob]) -> Iterator[Job]:
    """Return the elements that attempts have become, of those that are one by now."""
    looked = {each.folder: _looked(each.folder, each.cluster) for each in waiting}
    for each in waiting:
        outcome = looked[each.folder].outcome(each.directory.path)
        if isinstance(outcome, Job):
            yield write_element(outcome)


def write_element(job: Job) -> Job:
    """Note in the run directory of an element which one it is, and return its job."""
    with suppress(OSError):  # its array knows it, too
        job.directory.write_job(job.to_data(), lasts=False)
    return job


def _looked(folder: str, cluster: SlurmClient) -> ArrayPlanner:
    gathering = ArrayPlanner(folder, cluster)
    gathering.poll()
    return gathering
