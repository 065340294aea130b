"""The attempts of one task instance: which one counts, and whether to take it up or to begin anew."""

from __future__ import annotations

import os
import re
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.core.formats import ATTEMPT
from airflow_provider_sewer.core.trusted_files import check_own_folders
from airflow_provider_sewer.slurm.job_directory import JobDirectory, run_directories_of

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_NAME = 120
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class TaskInstance(NamedTuple):
    """What attempts are for.

    :param dag_id: its DAG.
    :param run_id: its run.
    :param task_id: its task.
    :param map_index: its place in a mapped task, else -1.
    :param clears: what changes when a user clears the task, unless it is running.
    :param run_clears: how often a user has cleared tasks of its run; Airflow does not tell which.
    :param is_extra: whether this is a try beyond those that the task has.
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
        """Tell whether an attempt was begun for what is wanted now: no user has cleared the task since.

        A user's clear gives a task more tries, unless it is running. The process that runs it then marks the run
        directory. Where that process is dead, an extra try follows, as one does after a restart of the scheduler; only
        then counts whether any task of the run was cleared.
        """
        return attempt.clears == self.clears and (not self.is_extra or attempt.run_clears == self.run_clears)


class Attempt(NamedTuple):
    """One attempt.

    :param directory: its run directory.
    :param name: the name of its job.
    :param cluster: what it was begun on, ``slurm`` or ``local``; empty if it is new.
    :param clears: see :class:`TaskInstance`, when it was begun.
    :param run_clears: likewise.
    :param in_array: whether it is to be an element of an array, or is one.
    :param collected_in: the number of the try that has collected its success; 0 if none has.
    """

    directory: JobDirectory
    name: str
    cluster: str
    clears: str
    run_clears: int
    in_array: bool = False
    collected_in: int = 0

    def note_intent(self, cluster: str, made: float, begun: float) -> None:
        """Note that a submission begins now, so that another process knows for how long to wait for it.

        :param cluster: what it is submitted to.
        :param made: when the attempt was made, in seconds since the epoch.
        :param begun: when this submission begins.
        :raises OSError: when that cannot be written.
        """
        noted = (self.name, cluster, self.clears, self.run_clears, made, begun, self.in_array)
        self.directory.write_attempt(ATTEMPT.packed(noted))

    def cancel(self) -> None:
        """Have its job end, or not even begin; what has lost its run directory cannot begin anyway.

        :raises SlurmUnavailable: when that cannot be noted.
        """
        self._note(self.directory.cancel)

    def record_end(self, how: str) -> None:
        """Note that nothing more is wanted of it: ``collected``, ``failed`` or ``abandoned``.

        :raises SlurmUnavailable: when that cannot be noted.
        """
        self._note(partial(self.directory.write_ended, how))

    def _note(self, write: Callable[[], None]) -> None:
        path = self.directory.path
        try:
            write()
        except FileNotFoundError:
            if os.path.isdir(path):  # otherwise somebody has removed it, and with it all that could begin
                raise
        except OSError as error:
            raise SlurmUnavailable(
                f"run_dir: cannot write into {path!r}: {error.strerror}", run_directory=path
            ) from None


class Attempts:
    """All attempts of a task instance, in folders with their numbers.

    :param run_dir: the folder of all run directories.
    :param instance: the task instance.
    :param label: what its jobs are called, before the part that makes each name unique.
    """

    def __init__(self, run_dir: str, instance: TaskInstance, label: str | None = None) -> None:
        self._run_dir = run_dir
        self._folder = run_directories_of(run_dir, *instance[:4])
        self._instance = instance
        self._label = label or f"{instance.dag_id}.{instance.task_id}"

    def latest(self) -> Attempt | None:
        """Return the latest attempt, unless somebody has noted its end; ``None`` if there is none.

        One that is noted to be for something else is passed over: it is not ours to take up, or to cancel. An attempt
        that was not noted has no cluster, and continues nothing.

        :raises SlurmUnavailable: when the folder cannot be read.
        :raises UnreadableRecord: when the attempt was noted, and that cannot be read.
        :raises UntrustedPath: when another user could have written it, or one that it is in below `run_dir`.
        """
        attempt = self._newest()
        return None if attempt is None or attempt.directory.read_ended() else attempt

    def collected(self) -> Attempt | None:
        """Return the latest attempt if an earlier try of the same series has collected its success.

        Airflow may never have stored what that try returned: its worker can have died in between.

        :raises SlurmUnavailable: when the folder cannot be read.
        """
        attempt = self._newest()
        if attempt is None or attempt.directory.read_ended() != "collected":
            return None
        attempt = attempt._replace(collected_in=attempt.directory.read_ended_try())
        if attempt.collected_in >= self._instance.try_number > 0:  # that was a DAG run of this name that was deleted
            attempt.record_end("abandoned")
            return None
        is_wanted = self._instance.continues(attempt) and not attempt.directory.is_cleared
        return attempt if 0 < attempt.collected_in < self._instance.try_number and is_wanted else None

    def _newest(self) -> Attempt | None:
        for number in sorted(self._numbers(), reverse=True):
            directory = self._directory(number)
            directory.check_own()
            noted = directory.read_attempt()
            if noted is None and not directory.is_empty:  # nothing was submitted
                return Attempt(directory, self._name(number), "", "", -1)
            if noted is None:
                return None
            if self._is_ours(number, noted["name"]):
                said = (noted["name"], noted["cluster"], noted["clears"], noted["run_clears"])
                return Attempt(directory, *said, in_array=noted["in_array"])
        return None

    def begin(self) -> Attempt:
        """Make the run directory of a new attempt.

        :raises SlurmUnavailable: when that is not possible.
        :raises UntrustedPath: as for :meth:`latest`.
        """
        while True:
            number = max(self._numbers(), default=0) + 1
            directory = self._directory(number)
            try:
                directory.make()
            except FileExistsError as error:
                if not os.path.isdir(directory.path):  # another process was not quicker: there is a file in the way
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
        """Return a job's name: readable, and the same for nothing else in the world that shares this run directory."""
        readable = re.sub(r"[^\w.+ -]", "_", self._label)[:LONGEST_NAME].strip()
        return f"{readable}-{self._mark(number)}{_hash(self._folder)[:6]}"

    def _is_ours(self, number: int, name: str) -> bool:
        """Tell whether an attempt is for this task instance, whatever its jobs were called and the folder was then."""
        return name.rpartition("-")[2].startswith(self._mark(number))

    def _mark(self, number: int) -> str:
        return _hash("\0".join((*map(str, self._instance[:4]), str(number))))[:12]


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _unusable(path: str, error: OSError) -> SlurmUnavailable:
    return SlurmUnavailable(f"run_dir: cannot use {path!r}: {error.strerror}", run_directory=path)
