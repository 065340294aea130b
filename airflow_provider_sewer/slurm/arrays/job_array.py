"""One array: its folder, its elements, its script, and what became of it."""

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
from airflow_provider_sewer.slurm.job_directory import LARGEST_NOTED, JobDirectory
from airflow_provider_sewer.slurm.job_script import ArrayScript

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.slurm.backend import JobBackend

#: The folder of all arrays of a mapped task, beside those of its instances.
ARRAYS = "arrays"
_ELEMENT = re.compile(r"[0-9]{1,9}")


class ArrayOptions(NamedTuple):
    """What is asked of Slurm for a whole array, and so has to be equal for all its elements.

    :param label: what its job is called, before the part that makes the name unique.
    :param resources: Slurm parameters by submitit's names.
    :param requeue: whether Slurm may start an element once more.
    :param most_seconds: for how long the controller, or room for the array, is waited for.
    """

    label: str
    resources: Mapping[str, Any]
    requeue: bool
    most_seconds: float | None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> ArrayOptions:
        """Return what a record says.

        :raises LookupError: when it is not whole.
        :raises TypeError: when it is not of its form.
        """
        most = fields["most_seconds"]
        types = {"label": str, "resources": dict, "requeue": bool, **({} if most is None else {"most_seconds": float})}
        if not has_types(fields, types):
            raise TypeError("'wants' has another form")
        return cls(fields["label"], fields["resources"], fields["requeue"], most)

    def to_data(self) -> dict[str, Any]:
        """Return what is stored of it."""
        label, resources, requeue, most_seconds = self
        return {"label": label, "resources": dict(resources), "requeue": requeue, "most_seconds": most_seconds}


class JobArray:
    """An array in its folder; what is read of it may have been written by another process.

    :param path: the folder.
    """

    def __init__(self, path: str) -> None:
        self.directory = _ArrayDirectory(path)
        self.elements: dict[int, str] = {}
        self.options: ArrayOptions | None = None
        self.job: dict[str, Any] | None = None
        self.refusal: errors.SlurmError | None = None
        self.read()

    def read(self) -> None:
        """Read anew what can have changed.

        :raises UnreadableRecord: when another version has written it, or it is damaged.
        """
        directory = self.directory
        if (members := directory.read_members()) is not None:  # else it did not come as far as having members
            with MEMBERS.reading(directory.members):
                if not all(map(self._is_element, members["elements"].items())):
                    raise MEMBERS.damaged(directory.members, "it names other folders than those of the instances")
                self.options = ArrayOptions.of(members["wants"])
                self.elements = {int(number): path for number, path in members["elements"].items()}
        self.job = directory.read_job()
        if (refused := directory.read_refusal()) is not None:
            kind: Any = errors.KEYS.get(refused["error"], errors.SlurmError)
            kind = kind if issubclass(kind, errors.SlurmError) else errors.SlurmError
            self.refusal = kind(str(refused["message"]), run_directory=directory.path)

    def _is_element(self, element: tuple[str, Any]) -> bool:
        """Tell whether this is a number and the run directory of an instance of the same mapped task."""
        number, path = element
        is_path = isinstance(path, str) and os.path.isabs(path)
        return bool(_ELEMENT.fullmatch(number)) and is_path and is_in(os.path.dirname(self.directory.path), path)

    @property
    def is_outcome_known(self) -> bool:
        """Tell whether it is known what became of it."""
        return self.job is not None or self.refusal is not None

    @property
    def is_formed(self) -> bool:
        """Tell whether it came as far as having members."""
        return self.options is not None

    @property
    def name(self) -> str:
        """Return the name of its job: the same for nothing else in the world that shares this run directory."""
        label = self.options.label if self.options else ""
        readable = re.sub(r"[^\w.+ -]", "_", label)[:LONGEST_NAME].strip()
        return f"{readable}-{tag_of(self.directory.path)}"

    def form(self, elements: Mapping[int, str], wants: ArrayOptions) -> None:
        """Make it of these: for each element's number the run directory that it runs in."""
        for number, path in elements.items():
            with suppress(FileExistsError):
                os.symlink(path, os.path.join(self.directory.path, str(number)))
        self.elements, self.options = dict(elements), wants
        self.directory.write_members({"elements": self.elements, "wants": wants.to_data()})

    def script(self) -> ArrayScript:
        """Return what Slurm is given."""
        assert self.options is not None, self.directory.path  # noqa: S101 - nothing else is sent
        return ArrayScript(self.name, sorted(self.elements), self.options.resources, self.options.requeue)

    def element(self, number: int, cluster: JobBackend) -> Job:
        """Return the job of one element; the array has been sent."""
        noted = self.job or {}
        directory = JobDirectory(self.elements[number])
        return Job.of(f"{noted['id']}_{number}", self.name, directory, cluster, noted["submitted"])

    def refuse(self, error: errors.SlurmError) -> None:
        """Note that it will never be sent, for all its members to fail of."""
        self.directory.write_refusal({"error": errors.key_of(type(error)), "message": error.message})
        self.refusal = error


def folder_of(path: str) -> str:
    """Return the folder of the arrays that the attempt of a run directory can be in."""
    return os.path.join(os.path.dirname(os.path.dirname(path)), ARRAYS)


def is_in(folder: str, path: str) -> bool:
    """Tell whether the attempt of a run directory can be in the arrays of a folder, whatever the names of both here."""
    own = folder_of(path)
    with suppress(OSError, ValueError):
        return own == folder or os.path.samefile(own, folder)
    return False


class _ArrayDirectory(JobDirectory):
    """The folder of an array: the script, the name and the id lie in it as they do in an attempt's run directory."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.members = self._file("members.json")  # which element runs in which run directory
        self._refused = self._file("refused.json")

    def write_members(self, members: Mapping[str, Any]) -> None:
        """Note of what the array consists."""
        self._write_record(MEMBERS, self.members, members)

    def read_members(self) -> dict[str, Any] | None:
        """Return of what the array consists, if it came as far as that.

        :raises UnreadableRecord: when another version has noted it, or it is damaged.
        """
        return self._read_record(MEMBERS, self.members, largest=LARGEST_NOTED)

    def write_refusal(self, refusal: Mapping[str, Any]) -> None:
        """Note why it will not be sent."""
        self._write_record(REFUSED, self._refused, refusal)

    def read_refusal(self) -> dict[str, Any] | None:
        """Return why it will not be sent, if it was noted.

        :raises UnreadableRecord: when another version has noted it, or it is damaged.
        """
        return self._read_record(REFUSED, self._refused)
