"""Attempts of one task instance: the latest one, and whether a try reattaches to it or begins a new one."""

from __future__ import annotations

import os
import re
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.core.formats import ATTEMPT
from airflow_provider_sewer.core.trusted_files import check_own_folders
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.run_dir import job_directories_of

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_NAME = 120
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class TaskInstance(NamedTuple):
    """Task instance that attempts belong to.

    :param dag_id: its DAG.
    :param run_id: its run.
    :param task_id: its task.
    :param map_index: its index in a mapped task, else -1.
    :param clears: a text that differs after a user has cleared the task, unless it was running.
    :param run_clears: how often a user has cleared tasks of its run; Airflow does not record which ones.
    :param is_extra: whether this try exceeds the task's number of tries.
    :param try_number: Airflow's number of this try; 0 where tries have no numbers.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    clears: str
    run_clears: int = 0
    is_extra: bool = False
    try_number: int = 0

    def continues(self, attempt: Attempt) -> bool:
        """Return whether an attempt is for the present series of tries: no user has cleared the task since.

        A user's clear gives a task more tries, unless it is running: then the process that runs it marks the job
        directory. Where that process is dead, an extra try follows, as one does after a restart of the scheduler. Only
        for an extra try the clears of the whole run count.
        """
        return attempt.clears == self.clears and (not self.is_extra or attempt.run_clears == self.run_clears)


class Attempt(NamedTuple):
    """One attempt.

    :param directory: its job directory.
    :param name: the name of its job.
    :param cluster: the backend of its submission, ``slurm`` or ``local``; empty if it is new.
    :param clears: see :class:`TaskInstance`, as of its submission.
    :param run_clears: likewise.
    :param in_array: whether its job is, or is to become, an array task.
    :param collected_in: the number of the try that has collected its success; 0 if none has.
    """

    directory: JobDirectory
    name: str
    cluster: str
    clears: str
    run_clears: int
    in_array: bool = False
    collected_in: int = 0

    def record_intent(self, cluster: str, created: float, begun: float) -> None:
        """Record that a submission begins now, so that another process knows for how long to wait for it.

        :param cluster: the backend it is submitted to.
        :param created: when the attempt was created, in seconds since the epoch.
        :param begun: when this submission begins.
        :raises OSError: when that cannot be written.
        """
        values = (self.name, cluster, self.clears, self.run_clears, created, begun, self.in_array)
        self.directory.write_attempt(ATTEMPT.packed(values))

    def record_end(self, how: str) -> None:
        """Record that it is closed: ``collected``, ``failed`` or ``abandoned``.

        :raises SlurmUnavailable: when that cannot be recorded.
        """
        self.record(partial(self.directory.write_ended, how))

    def record(self, write: Callable[[], None]) -> None:
        """Write a record, unless its job directory was removed.

        :raises SlurmUnavailable: when that is not possible.
        """
        with self.directory.writing():
            try:
                write()
            except FileNotFoundError:
                if os.path.isdir(self.directory.path):  # otherwise it was removed, and a job without it cannot begin
                    raise


class Attempts:
    """All attempts of a task instance, in folders named by their numbers.

    :param run_dir: the folder of all job directories.
    :param instance: the task instance.
    :param label: readable first part of its job names.
    """

    def __init__(self, run_dir: str, instance: TaskInstance, label: str | None = None) -> None:
        self._run_dir = run_dir
        self._folder = job_directories_of(run_dir, *instance[:4])
        self._instance = instance
        self._label = label or f"{instance.dag_id}.{instance.task_id}"

    def latest(self) -> Attempt | None:
        """Return the latest attempt that is not closed; ``None`` if there is none.

        An attempt that is recorded for another task instance is skipped: it must not be reattached or cancelled. An
        attempt without a record has no cluster, and no try continues it.

        :raises SlurmUnavailable: when the folder cannot be read.
        :raises UnreadableRecord: when the attempt's record cannot be read.
        :raises UntrustedPath: when another user could have written it, or a folder above it up to `run_dir`.
        """
        attempt = self._newest()
        return None if attempt is None or attempt.directory.read_ended() else attempt

    def collected(self) -> Attempt | None:
        """Return the latest attempt if an earlier try of the same series has collected its success.

        Airflow may have lost that try's return value: its worker can have died before it was stored.

        :raises SlurmUnavailable: when the folder cannot be read.
        """
        attempt = self._newest()
        if attempt is None or attempt.directory.read_ended() != "collected":
            return None
        attempt = attempt._replace(collected_in=attempt.directory.read_ended_try())
        if attempt.collected_in >= self._instance.try_number > 0:  # of a deleted DAG run with the same name
            attempt.record_end("abandoned")
            return None
        is_valid = self._instance.continues(attempt) and not attempt.directory.is_cleared
        return attempt if 0 < attempt.collected_in < self._instance.try_number and is_valid else None

    def latest_of_series(self) -> Attempt | None:
        """Return the latest attempt of the present series of tries, closed or not; ``None`` if there is none.

        An attempt that was not recorded was not submitted, and does not count.

        :raises SlurmUnavailable: when the folder cannot be read.
        :raises UnreadableRecord: when the record of an attempt cannot be read.
        """
        for number in sorted(self._numbers(), reverse=True):
            directory = self._directory(number)
            directory.check_own()
            record = directory.read_attempt()
            if record is not None and self._is_ours(number, record["name"]):
                attempt = self._recorded(directory, record)
                is_valid = self._instance.continues(attempt) and not directory.is_cleared
                return attempt if is_valid else None
        return None

    def _newest(self) -> Attempt | None:
        for number in sorted(self._numbers(), reverse=True):
            directory = self._directory(number)
            directory.check_own()
            record = directory.read_attempt()
            if record is None and not directory.is_empty:  # nothing was submitted
                return Attempt(directory, self._name(number), "", "", -1)
            if record is None:
                return None
            if self._is_ours(number, record["name"]):
                return self._recorded(directory, record)
        return None

    @staticmethod
    def _recorded(directory: JobDirectory, record: dict[str, Any]) -> Attempt:
        fields = (record["name"], record["cluster"], record["clears"], record["run_clears"])
        return Attempt(directory, *fields, in_array=record["in_array"])

    def begin(self) -> Attempt:
        """Create the job directory of a new attempt.

        :raises SlurmUnavailable: when that is not possible.
        :raises UntrustedPath: as for :meth:`latest`.
        """
        while True:
            number = max(self._numbers(), default=0) + 1
            directory = self._directory(number)
            try:
                directory.create()
            except FileExistsError as error:
                if not os.path.isdir(directory.path):  # a file is in the way, not another process's directory
                    raise _unusable(directory.path, error) from None
            except OSError as error:
                raise _unusable(directory.path, error) from None
            else:
                check_own_folders(self._run_dir, directory.path, "run_dir")
                return Attempt(directory, self._name(number), "", self._instance.clears, self._instance.run_clears)

    def _numbers(self) -> list[int]:
        check_own_folders(self._run_dir, self._folder, "run_dir")
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unusable(self._folder, error) from None
        return [int(name) for name in names if _NUMBER.fullmatch(name)]

    def _directory(self, number: int) -> JobDirectory:
        return JobDirectory(os.path.join(self._folder, str(number)))

    def _name(self, number: int) -> str:
        """Return a job's name: readable, and unique to this attempt and job directory."""
        readable = re.sub(r"[^\w.+ -]", "_", self._label)[:LONGEST_NAME].strip()
        return f"{readable}-{self._identity_hash(number)}{_hash(self._folder)[:6]}"

    def _is_ours(self, number: int, name: str) -> bool:
        """Return whether an attempt is for this task instance, also after its label or the folder has changed."""
        return name.rpartition("-")[2].startswith(self._identity_hash(number))

    def _identity_hash(self, number: int) -> str:
        return _hash("\0".join((*map(str, self._instance[:4]), str(number))))[:12]


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _unusable(path: str, error: OSError) -> SlurmUnavailable:
    return SlurmUnavailable(f"run_dir: cannot use {path!r}: {error.strerror}", run_directory=path)
