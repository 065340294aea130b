"""Queue of the attempts that wait for an array, each registered in its own file."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import NamedTuple

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.errors import SewerError, SlurmUnavailable, UnreadableRecord
from airflow_provider_sewer.core.formats import WAITING
from airflow_provider_sewer.core.trusted_files import check_own_folders, parse_json, read_own
from airflow_provider_sewer.slurm.arrays.job_array import ArrayOptions, is_in
from airflow_provider_sewer.slurm.job_directory import JobDirectory


class ArrayMember(NamedTuple):
    """Attempt of a mapped instance that is to become an element of an array.

    :param path: its job directory.
    :param map_index: the instance's index in the mapped task.
    :param expected: how many instances the mapped task has; 0 if that is not known.
    :param array_wait: seconds without a new member after which the array is submitted.
    :param options: its options of Slurm.
    """

    path: str
    map_index: int
    expected: int
    array_wait: float
    options: ArrayOptions

    @property
    def attempt(self) -> int:
        """Return its number among the attempts of its instance."""
        return int(os.path.basename(self.path))

    @property
    def is_requested(self) -> bool:
        """Return whether it is neither cancelled nor closed."""
        directory = JobDirectory(self.path)
        return not directory.is_cancelled and not directory.has_end


class MemberQueue:
    """Registrations of waiting attempts.

    :param folder: the folder of the arrays of a mapped task.
    """

    def __init__(self, folder: str) -> None:
        self._folder = os.path.join(folder, "waiting")
        self._read: dict[str, ArrayMember] = {}
        self._unreadable: dict[str, SewerError] = {}

    def register(self, member: ArrayMember) -> None:
        """Register an attempt; all other files of its element have been written.

        :raises SlurmUnavailable: when that cannot be recorded.
        :raises UntrustedPath: when another user could have written the folder.
        """
        path = self._path(member.path)
        try:
            with suppress(FileExistsError):
                JobDirectory(self._folder).create()
            check_own_folders(os.path.dirname(os.path.dirname(self._folder)), self._folder, "run_dir")
            record = WAITING.packed([*member[:-1], member.options.to_data()])
            write_atomically(path, json.dumps(record).encode(), lasts=True)
        except OSError as error:
            raise SlurmUnavailable(
                f"run_dir: cannot write into {self._folder!r}: {error.strerror}", run_directory=member.path
            ) from None

    def has(self, path: str) -> bool:
        """Return whether the attempt with this job directory waits."""
        return os.path.exists(self._path(path))

    def read_error(self, path: str) -> SewerError | None:
        """Return why the registration of this job directory cannot be read, if it is there and cannot."""
        file = self._path(path)
        name = os.path.basename(file)
        if name not in self._read:  # one read per member: a thousand triggers ask, each for its own
            self._unreadable.pop(file, None)
            if (member := self._member(name)) is not None:
                self._read[name] = member
        return self._unreadable.get(file)

    def remove(self, path: str) -> None:
        """Remove the attempt with this job directory."""
        with suppress(OSError):  # it is skipped anyway: it has an array, or it is cancelled
            os.unlink(self._path(path))

    def members(self) -> list[ArrayMember]:
        """Return all waiting members."""
        try:
            names = [name for name in os.listdir(self._folder) if name.endswith(".json")]
        except FileNotFoundError:
            names = []
        self._unreadable.clear()
        read = {name: self._read.get(name) or self._member(name) for name in names}
        self._read = {name: member for name, member in read.items() if member is not None}
        return list(self._read.values())

    def _member(self, name: str) -> ArrayMember | None:
        """Return the member registered in a file; ``None`` if it has just left, or it is not a record here."""
        path = os.path.join(self._folder, name)
        try:
            member = self._read_member(path)
        except FileNotFoundError:
            return None
        except (OSError, UnreadableRecord) as error:
            self._unreadable[path] = error if isinstance(error, SewerError) else WAITING.damaged(path, error)
            return None
        is_attempt = os.path.basename(member.path).isdecimal() and self._path(member.path) == path
        return member if is_attempt and is_in(os.path.dirname(self._folder), member.path) else None

    @staticmethod
    def _read_member(path: str) -> ArrayMember:
        with WAITING.reading(path):
            fields = WAITING.read(path, parse_json(read_own(path)))
            return ArrayMember(*WAITING.values({**fields, "options": ArrayOptions.of(fields["options"])}))

    def _path(self, path: str) -> str:
        instance, attempt = os.path.split(path)
        return os.path.join(self._folder, f"{os.path.basename(instance)}-{attempt}.json")
