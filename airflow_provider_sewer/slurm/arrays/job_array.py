"""Job array: its folder, its elements, its script, and its outcome."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.core.formats import MEMBERS, REFUSED
from airflow_provider_sewer.core.trusted_files import has_types
from airflow_provider_sewer.slurm.attempts import LONGEST_NAME
from airflow_provider_sewer.slurm.backend import tag_of
from airflow_provider_sewer.slurm.job import Job
from airflow_provider_sewer.slurm.job_directory import LARGEST_SAVED, JobDirectory
from airflow_provider_sewer.slurm.job_script import ArrayScript

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.slurm.backend import JobBackend

#: Name of the folder of all arrays of a mapped task, beside the folders of its instances.
ARRAYS = "arrays"
_ELEMENT = re.compile(r"[0-9]{1,9}")


class ArrayOptions(NamedTuple):
    """Options of a whole array, which must be equal for all its elements.

    :param label: readable first part of its job name.
    :param resources: Slurm parameters by submitit's names.
    :param requeue: whether Slurm may start an element again.
    :param most_seconds: limit on waiting for the controller, or for room for the array.
    """

    label: str
    resources: Mapping[str, Any]
    requeue: bool
    most_seconds: float | None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> ArrayOptions:
        """Return the options in a record.

        :raises LookupError: when a field is missing.
        :raises TypeError: when a field has another type.
        """
        most = fields["most_seconds"]
        types = {"label": str, "resources": dict, "requeue": bool, **({} if most is None else {"most_seconds": float})}
        if not has_types(fields, types):
            raise TypeError("'options' has another form")
        return cls(fields["label"], fields["resources"], fields["requeue"], most)

    def to_data(self) -> dict[str, Any]:
        """Return the data to store."""
        label, resources, requeue, most_seconds = self
        return {"label": label, "resources": dict(resources), "requeue": requeue, "most_seconds": most_seconds}


class JobArray:
    """An array in its folder; another process may have written the records.

    :param path: the folder.
    """

    def __init__(self, path: str) -> None:
        self.directory = _ArrayDirectory(path)
        self.elements: dict[int, str] = {}
        self.options: ArrayOptions | None = None
        self.job: dict[str, Any] | None = None
        self.rejection: errors.SlurmError | None = None
        self.read()

    def read(self) -> None:
        """Read again all records that can have changed.

        :raises UnreadableRecord: when another version has written it, or it is damaged.
        """
        directory = self.directory
        if (members := directory.read_members()) is not None:  # else it was not formed
            with MEMBERS.reading(directory.members):
                if not all(map(self._is_element, members["elements"].items())):
                    raise MEMBERS.damaged(directory.members, "it names folders other than those of the instances")
                self.options = ArrayOptions.of(members["options"])
                self.elements = {int(number): path for number, path in members["elements"].items()}
        self.job = directory.read_job()
        if (refused := directory.read_refusal()) is not None:
            kind: Any = errors.KEYS.get(refused["error"], errors.SlurmError)
            kind = kind if issubclass(kind, errors.SlurmError) else errors.SlurmError
            self.rejection = kind(str(refused["message"]), run_directory=directory.path)

    def _is_element(self, element: tuple[str, Any]) -> bool:
        """Return whether this is a number and the job directory of an instance of the same mapped task."""
        number, path = element
        is_path = isinstance(path, str) and os.path.isabs(path)
        return bool(_ELEMENT.fullmatch(number)) and is_path and is_in(os.path.dirname(self.directory.path), path)

    @property
    def is_outcome_known(self) -> bool:
        """Return whether it was submitted or rejected."""
        return self.job is not None or self.rejection is not None

    @property
    def is_formed(self) -> bool:
        """Return whether it has members."""
        return self.options is not None

    @property
    def name(self) -> str:
        """Return its job name, which is unique to this folder."""
        label = self.options.label if self.options else ""
        readable = re.sub(r"[^\w.+ -]", "_", label)[:LONGEST_NAME].strip()
        return f"{readable}-{tag_of(self.directory.path)}"

    def form(self, elements: Mapping[int, str], options: ArrayOptions) -> None:
        """Set its elements: the job directory of each element by its number."""
        for number, path in elements.items():
            with suppress(FileExistsError):
                os.symlink(path, os.path.join(self.directory.path, str(number)))
        self.elements, self.options = dict(elements), options
        self.directory.write_members({"elements": self.elements, "options": options.to_data()})

    def script(self) -> ArrayScript:
        """Return its script for sbatch."""
        assert self.options is not None, self.directory.path  # noqa: S101 - only a formed array is submitted
        return ArrayScript(self.name, sorted(self.elements), self.options.resources, self.options.requeue)

    def element(self, number: int, cluster: JobBackend) -> Job:
        """Return the job of one element; the array has been submitted."""
        record = self.job or {}
        directory = JobDirectory(self.elements[number])
        return Job.of(f"{record['id']}_{number}", self.name, directory, cluster, record["submitted"])

    def reject(self, error: errors.SlurmError) -> None:
        """Record that it will never be submitted, so that all its members fail."""
        self.directory.write_refusal({"error": errors.key_of(type(error)), "message": error.message})
        self.rejection = error


def folder_of(path: str) -> str:
    """Return the folder of the arrays that an attempt's job directory belongs to."""
    return os.path.join(os.path.dirname(os.path.dirname(path)), ARRAYS)


def is_in(folder: str, path: str) -> bool:
    """Return whether a job directory belongs to the arrays of a folder, by path or as the same file."""
    own = folder_of(path)
    with suppress(OSError, ValueError):
        return own == folder or os.path.samefile(own, folder)
    return False


class _ArrayDirectory(JobDirectory):
    """Folder of an array, with script, attempt and job records as in an attempt's job directory."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.members = self._file("members.json")  # the job directory of each element
        self._refused = self._file("refused.json")

    def write_members(self, members: Mapping[str, Any]) -> None:
        """Record the members of the array."""
        self._write_record(MEMBERS, self.members, members)

    def read_members(self) -> dict[str, Any] | None:
        """Return the members of the array, if it was formed.

        :raises UnreadableRecord: when another version has written it, or it is damaged.
        """
        return self._read_record(MEMBERS, self.members, largest=LARGEST_SAVED)

    def write_refusal(self, refusal: Mapping[str, Any]) -> None:
        """Record why it will not be submitted."""
        self._write_record(REFUSED, self._refused, refusal)

    def read_refusal(self) -> dict[str, Any] | None:
        """Return why it will not be submitted, if that was recorded.

        :raises UnreadableRecord: when another version has written it, or it is damaged.
        """
        return self._read_record(REFUSED, self._refused)
