"""Who waits for an array: the attempts that have registered, each in a file of its own."""

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
    """An attempt of a mapped instance that is to be an element of an array.

    :param path: its run directory.
    :param map_index: the instance's place in the mapped task.
    :param expected: how many instances the mapped task has; 0 if that is not known.
    :param array_wait: seconds without a new one after which no more are waited for.
    :param wants: what it asks Slurm for.
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
        """Tell whether anybody still wants it."""
        directory = JobDirectory(self.path)
        return not directory.is_cancelled and not directory.has_end


class MemberQueue:
    """The files of those who wait.

    :param folder: the folder of the arrays of a mapped task.
    """

    def __init__(self, folder: str) -> None:
        self._folder = os.path.join(folder, "waiting")
        self._read: dict[str, ArrayMember] = {}
        self._unreadable: dict[str, SewerError] = {}

    def register(self, member: ArrayMember) -> None:
        """Have an attempt wait; all else that its element needs has been written.

        :raises SlurmUnavailable: when that cannot be noted.
        :raises UntrustedPath: when another user could have written the folder.
        """
        path = self._path(member.path)
        try:
            with suppress(FileExistsError):
                JobDirectory(self._folder).make()
            check_own_folders(os.path.dirname(os.path.dirname(self._folder)), self._folder, "run_dir")
            record = WAITING.packed([*member[:-1], member.options.to_data()])
            write_atomically(path, json.dumps(record).encode(), lasts=True)
        except OSError as error:
            raise SlurmUnavailable(
                f"run_dir: cannot write into {self._folder!r}: {error.strerror}", run_directory=member.path
            ) from None

    def has(self, path: str) -> bool:
        """Tell whether the attempt of this run directory waits."""
        return os.path.exists(self._path(path))

    def why_unreadable(self, path: str) -> SewerError | None:
        """Return why the attempt of this run directory does not get into an array, as far as :meth:`members` shows."""
        return self._unreadable.get(self._path(path))

    def remove(self, path: str) -> None:
        """Have the attempt of this run directory wait no longer."""
        with suppress(OSError):  # it is passed over: it has an array, or it is cancelled
            os.unlink(self._path(path))

    def members(self) -> list[ArrayMember]:
        """Return all that wait."""
        try:
            names = [name for name in os.listdir(self._folder) if name.endswith(".json")]
        except FileNotFoundError:
            names = []
        self._unreadable.clear()
        read = {name: self._read.get(name) or self._member(name) for name in names}
        self._read = {name: member for name, member in read.items() if member is not None}
        return list(self._read.values())

    def _member(self, name: str) -> ArrayMember | None:
        """Return who waits by a file; ``None`` if it has just left, or the file is not a record of this folder."""
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
            return ArrayMember(*WAITING.values({**fields, "wants": ArrayOptions.of(fields["wants"])}))

    def _path(self, path: str) -> str:
        instance, attempt = os.path.split(path)
        return os.path.join(self._folder, f"{os.path.basename(instance)}-{attempt}.json")
