"""Planner of the arrays of one mapped task: forms them of registered members, and submits them."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SewerError, SlurmError, SlurmSubmissionRejected, UnreadableRecord
from airflow_provider_sewer.execution.job_messages import WarningLine
from airflow_provider_sewer.slurm.arrays.array_lease import Lease
from airflow_provider_sewer.slurm.attempts import Attempt
from airflow_provider_sewer.slurm.cancellation import cancel_jobs, cancel_submission
from airflow_provider_sewer.slurm.submission import DuplicateJobName, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_sewer.slurm.arrays.array_folder import ArrayFolder
    from airflow_provider_sewer.slurm.arrays.job_array import JobArray
    from airflow_provider_sewer.slurm.arrays.member_queue import ArrayMember
    from airflow_provider_sewer.slurm.client import SlurmClient

#: Seconds that a lease lasts beyond the longest submission.
_LEASE_BEYOND = 5.0
#: Limit on waiting for further members, in multiples of `array_wait` since the first one.
_MOST_WAITS = 20


class ArrayPlanner:
    """Planner of the arrays of one mapped task, which it forms and submits.

    :param folder: their folder.
    :param cluster: the client of their cluster.
    """

    def __init__(self, folder: ArrayFolder, cluster: SlurmClient) -> None:
        self._folder = folder
        self._cluster = cluster
        self._lease = Lease(folder.path, cluster.slowest_submission + _LEASE_BEYOND)
        self._seen: set[str] = set()
        self._first = self._latest = 0.0
        self._most = math.inf

    def is_due(self) -> bool:
        """Return whether there is an array to submit: one whose submission is not known, or members enough for one."""
        return bool(self._folder.unsent()) or self._is_enough()

    def submit_due(self, notify: Callable[[str], None]) -> Iterator[None]:
        """Submit the due arrays, if no other process does, and yield after each outcome.

        :raises LeaseLost: when another process has taken the lease.
        :raises SlurmUnreachable: when the cluster's limits cannot be determined now.
        """
        if not self._lease.take():
            return
        try:
            self._folder.poll()  # another process may have submitted an array until just now
            for array in self._folder.unsent():
                self._send(array, notify)
                yield
            due = {member.path for member in self._unplaced()} if self._is_enough() else set()
            while members := [member for member in self._requested() if member.path in due]:
                self._send(self._form(members), notify)
                yield
        finally:
            self._lease.release()

    # -- Members of the arrays -----------------------------------------------------------------------------------------

    def _is_enough(self) -> bool:
        """Return whether the waiting members need not wait for others any more."""
        members, now = self._unplaced(), time.monotonic()
        paths = {member.path for member in members}
        if not self._seen & paths:
            self._first = now
        if paths - self._seen:
            self._latest = now
        self._seen = paths
        if not members:
            return False
        array_wait = max(member.array_wait for member in members)
        has_all = len({member.map_index for member in members}) >= max(member.expected for member in members) > 0
        return has_all or now - self._latest >= array_wait or now - self._first >= _MOST_WAITS * array_wait

    def _unplaced(self) -> list[ArrayMember]:
        """Return the waiting members that are in no array."""
        placed = self._folder.placed()
        return [member for member in self._folder.queue.members() if member.path not in placed]

    def _requested(self) -> list[ArrayMember]:
        """Return the members in no array that are still valid: of each instance the last attempt."""
        members = sorted(self._unplaced(), key=lambda member: member.attempt)
        requested = {member.map_index: member for member in members if member.is_requested}
        for member in members:
            if requested.get(member.map_index) is not member:
                self._folder.queue.remove(member.path)
        return list(requested.values())

    def _form(self, members: list[ArrayMember]) -> JobArray:
        """Form an array of the first of these, as many as fit."""
        largest, most = self._cluster.array_limits()

        def kind(member: ArrayMember) -> tuple[str, int]:
            return json.dumps(member.options, sort_keys=True), member.map_index // (largest or len(members))

        _, group = next(groupby(sorted(members, key=lambda member: (kind(member), member.map_index)), key=kind))
        chosen = list(group)[: int(min(most or len(members), self._most, len(members)))]
        array = self._folder.new_array()
        array.form({member.map_index % (largest or len(members)): member.path for member in chosen}, chosen[0].options)
        if not largest:
            array.reject(SlurmSubmissionRejected("this cluster has no job arrays (MaxArraySize=0); remove array=True"))
        return array

    # -- Submission ----------------------------------------------------------------------------------------------------

    def _send(self, array: JobArray, notify: Callable[[str], None]) -> None:
        if not array.is_outcome_known:
            self._submit(array, notify)
        self._folder.record_outcome(array)
        for path in array.elements.values():
            self._folder.queue.remove(path)
        if array.job is not None:
            jobs = self._folder.jobs(array).values()
            cancel_jobs([job for job in jobs if job.directory.is_cancelled])

    def _submit(self, array: JobArray, notify: Callable[[str], None]) -> None:
        assert array.options is not None, array.directory.path  # noqa: S101 - only a formed array is submitted
        attempt = Attempt(array.directory, array.name, self._cluster.kind, "", 0)
        before = len(array.elements)
        submission = Submission(
            self._cluster,
            attempt,
            notify,
            self._lease.keep,
            array.options.most_seconds,
            shrink=partial(self._halve, array),
        )
        try:
            if not (array.directory.read_attempt() and submission.reattach()):
                with array.directory.writing():
                    array.script().write(array.directory)
                submission.submit()
        except DuplicateJobName as duplicate:
            notify(WarningLine(f"Cancelling {duplicate.job}: the folder of its array was removed"))
            cancel_submission(self._cluster, array.name, array.directory)
            array.form({}, array.options)  # its members can join another array
            array.reject(SlurmError("another array has its name"))
        except UnreadableRecord:
            raise
        except SewerError as error:
            cancel_submission(self._cluster, array.name, array.directory)
            array.reject(error if isinstance(error, SlurmError) else SlurmSubmissionRejected(error.message))
        array.read()
        if len(array.elements) == before:
            self._most *= 2

    def _halve(self, array: JobArray) -> bool:
        """Halve an array for which there is no room, and return whether that was possible."""
        fewer = dict(sorted(array.elements.items())[: len(array.elements) // 2])
        if not fewer or array.options is None:
            return False
        array.form(fewer, array.options)
        array.script().write(array.directory)
        self._most = len(fewer)
        return True
