"""Folder of the arrays of one mapped task: the arrays that processes have formed there, and their outcomes."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.trusted_files import check_own_folder
from airflow_provider_sewer.slurm.arrays.job_array import JobArray
from airflow_provider_sewer.slurm.arrays.member_queue import MemberQueue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.errors import SewerError, SlurmError
    from airflow_provider_sewer.slurm.client import SlurmClient
    from airflow_provider_sewer.slurm.job import Job

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class ArrayFolder:
    """Arrays of one mapped task, as this process knows them.

    :param path: their folder.
    :param cluster: the client of their cluster.
    """

    def __init__(self, path: str, cluster: SlurmClient) -> None:
        self.path = path
        self.queue = MemberQueue(path)
        self._cluster = cluster
        self._arrays: dict[int, JobArray] = {}
        self._outcomes: dict[str, Job | SlurmError] = {}

    def poll(self) -> None:
        """Read the outcomes of the arrays.

        :raises UntrustedPath: when another user could have written the folder of one.
        :raises UnreadableRecord: when a record of another version may describe elements that run.
        """
        check_own_folder(self.path, "run_dir")
        try:
            numbers = sorted(int(name) for name in os.listdir(self.path) if _NUMBER.fullmatch(name))
        except FileNotFoundError:
            return
        for number in numbers:
            if number not in self._arrays:
                path = os.path.join(self.path, str(number))
                check_own_folder(path, "run_dir")
                self._arrays[number] = JobArray(path)
            elif not self._arrays[number].is_outcome_known:
                self._arrays[number].read()
            else:
                continue
            self.record_outcome(self._arrays[number])

    def outcome(self, path: str) -> Job | SewerError | None:
        """Return the job or the error of the attempt with this job directory; ``None`` while it waits."""
        return self._outcomes.get(path) or self.queue.read_error(path)

    def is_awaited(self, path: str) -> bool:
        """Return whether the attempt with this job directory waits, or is in an array that is being submitted."""
        return self.queue.has(path) or path in self.placed()

    def unsent(self) -> list[JobArray]:
        """Return the arrays that are not known to be submitted."""
        return [array for array in self._arrays.values() if array.is_formed and not array.is_outcome_known]

    def placed(self) -> set[str]:
        """Return the job directories of the members of all arrays."""
        return {path for array in self._arrays.values() for path in array.elements.values()}

    def new_array(self) -> JobArray:
        """Create the folder of another array."""
        number = max(self._arrays, default=0)
        while True:
            number += 1
            path = os.path.join(self.path, str(number))
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
                array = self._arrays[number] = JobArray(path)
                return array

    def record_outcome(self, array: JobArray) -> None:
        """Record the jobs of the members of an array, or their error, if it has one."""
        if array.job is not None:
            self._outcomes |= self.jobs(array)
        elif array.rejection is not None:
            self._outcomes |= dict.fromkeys(array.elements.values(), array.rejection)

    def jobs(self, array: JobArray) -> Mapping[str, Job]:
        """Return the jobs of a submitted array, by the job directories of its members."""
        return {path: array.element(number, self._cluster) for number, path in array.elements.items()}
