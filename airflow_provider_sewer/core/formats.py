"""Formats of all records that are shared between versions of this package.

Each record has the key ``format``. Its keys do not depend on names in the code, so that classes, attributes and modules
can be renamed. ``docs/development/formats.md`` lists the writers and readers of each record, and when to increase its
version. ``tests/records/`` has a record of each released format.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import SewerError, UnreadableRecord
from airflow_provider_sewer.core.trusted_files import has_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: The key of a record that holds the version of its format.
VERSION_KEY = "format"

_RESTORE = "use the version of airflow-provider-sewer that wrote it, or restore it; to start again, remove"
_JOB = f"{_RESTORE} the job directory that it is in"
_ARRAY = f"{_RESTORE} the folder of arrays that it is in"
_NOTHING: Mapping[str, type] = MappingProxyType({})


class Format(NamedTuple):
    """Kind of record.

    :param name: its file, or another short name.
    :param keys: the required keys, and their types; ``object`` for any value. Other keys are ignored. Those of a named
        tuple are in the order of its fields.
    :param fix: advice for a record that cannot be read, as the end of a sentence.
    :param version: increased when a reader of the former version would misread a record.
    """

    name: str
    keys: Mapping[str, type] = _NOTHING
    fix: str = _JOB
    version: int = 1

    def written(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record for storage."""
        return {VERSION_KEY: self.version, **fields}

    def packed(self, values: Iterable[Any]) -> dict[str, Any]:
        """Return a record for storage, from values in the order of the keys."""
        return self.written(dict(zip(self.keys, values)))

    def values(self, record: Mapping[str, Any]) -> list[Any]:
        """Return the values of a stored record, in the order of the keys."""
        return [record[key] for key in self.keys]

    def read(self, where: str, record: Any) -> dict[str, Any]:
        """Return a stored record after checking it.

        :param where: its file, or another source.
        :raises UnreadableRecord: when it is of another format, or damaged.
        """
        version = record.get(VERSION_KEY) if isinstance(record, dict) else None
        if type(version) is not int:
            raise self.damaged(where, f"it is not a record with the key {VERSION_KEY!r}")
        if version != self.version:
            raise UnreadableRecord(
                f"{where} has format {version}, and this version of airflow-provider-sewer reads format "
                f"{self.version}; {self.fix}",
                version=version,
            )
        for key, kind in self.keys.items():
            if key not in record:
                raise self.damaged(where, f"the key {key!r} is missing")
            if kind is not object and not has_types(record, {key: kind}):
                raise self.damaged(where, f"{key!r} must be {kind.__name__}, got {type(record[key]).__name__}")
        return dict(record)

    def damaged(self, where: str, reason: object) -> UnreadableRecord:
        """Return the error for a damaged record."""
        return UnreadableRecord(f"{where} cannot be read as format {self.version}: {reason}; {self.fix}")

    @contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Add the record's name to errors that occur while a value is created from it.

        :raises UnreadableRecord: instead of these errors.
        """
        try:
            yield
        except UnreadableRecord:
            raise
        except KeyError as error:
            raise self.damaged(where, f"the key {error} is missing") from None
        except (LookupError, TypeError, ValueError, AttributeError, SewerError) as error:
            raise self.damaged(where, error) from None


# -- In the job directory of an attempt --------------------------------------------------------------------------------

ATTEMPT = Format(
    "attempt.json",
    {
        "name": str, "cluster": str, "clears": str, "run_clears": int, "created": float, "begun": float,
        "in_array": bool,
    },
)  # fmt: skip
#: Also an argument of the trigger, part of its event, and in Airflow's task state store.
JOB = Format("job.json", {"id": object, "name": str, "directory": str, "cluster": str, "submitted": object})
TASK = Format("task.json", {"members": list, "tasks": list, "mapped": list})
PRODUCTS = Format("products.json", {"attempt": str, "before": dict, "inputs": dict})
ASKED = Format("asked.json", {"own": dict, "asked": dict, "extra_tries": dict})
FAILURE = Format("failure.json", {"error": str, "node": str})
ENDED = Format("ended.json", {"how": str, "try_number": int})
CANCELLED = Format("cancelled", {"is_cleared": bool})
MONITOR = Format("monitor.json", {"token": str, "try_number": int})
UNKNOWN = Format("unknown.json", {"seconds": float})
LOG_OFFSETS = Format("log-offsets.json", {"stdout": dict, "stderr": dict})
USAGE = Format(
    "usage.json",
    {
        "name": str, "dag_id": str, "run_id": str, "task": str, "map_index": int, "job_id": str, "exit_class": str,
        "node": str, "waited": object, "started": object, "ended": object, "requested": dict, "used": dict,
        "source": str,
    },
)  # fmt: skip
#: These two records are written by the job script, ``job.bash``.
START = Format("start.json", {"job_id": str, "restart": int, "node": str, "pid": int, "time": float})
EXIT = Format(
    "exit.json",
    {
        "job_id": str, "restart": int, "node": str, "phase": str, "exit_code": int, "asked": object, "start": float,
        "end": float, "stdout": int, "stderr": int, "module_stdout": list, "result": int, "cpus": int,
        "unsignalled": bool, "is_torn_down": bool,
    },
)  # fmt: skip

# -- In the folder of the arrays of a mapped task ----------------------------------------------------------------------

WAITING = Format(
    "waiting/*.json",
    {"path": str, "map_index": int, "expected": int, "array_wait": float, "options": dict},
    _ARRAY,
)
MEMBERS = Format("members.json", {"elements": dict, "options": dict}, _ARRAY)
REFUSED = Format("refused.json", {"error": str, "message": object}, _ARRAY)

# -- Beside products, and of a user ------------------------------------------------------------------------------------

PRODUCT = Format(
    ".sewer/*.json",
    {
        "task": str, "command": str, "product": object, "dependencies": dict, "upstream": dict, "code": object,
        "environment": object, "result": object, "is_complete": bool, "is_removed": bool, "attempt": str,
        "was_complete": object, "beside": dict, "leaving": object, "dag_run": object,
    },
    "use the version of airflow-provider-sewer that wrote it, or remove it and run its task again",
)  # fmt: skip
CLAIM = Format(".sewer/*.runs/*.run", {"dag_id": object, "run_id": object, "task_id": object}, "remove it")
FAILED_FILES = Format(".sewer/*.failed", {"files": list}, "remove it")
CACHE = Format("cache", {"value": object, "fingerprints": dict}, "remove it")
#: Lines of a state file; its version is the value of ``sewer_state``.
STATE = Format("state", fix="use the version of airflow-provider-sewer that wrote it, or name another with --state")
#: Lines of the record of a run of ``sppe``; its version is the value of ``sewer_run``.
RUN_RECORD = Format("run.jsonl", fix="use the version of airflow-provider-sewer that wrote it")

# -- In Airflow's database ---------------------------------------------------------------------------------------------

_CLEAR = "use the version of airflow-provider-sewer that wrote it, or clear the task"
JOB_TRIGGER = Format("SlurmJobTrigger", {"job": dict, "module": str, "settings": dict}, _CLEAR)
JOB_EVENT = Format("event of SlurmJobTrigger", {"job": dict, "ending": dict}, _CLEAR)
PATH_TRIGGER = Format("PathTrigger", {"path": object, "interval": float, "deadline": float}, _CLEAR)
PATH_EVENT = Format("event of PathTrigger", {"path": object, "is_there": bool}, _CLEAR)
STORED_JOB = Format("task state slurm_job", {"job": dict, "keep": bool}, _CLEAR)
RUN = Format("XCom sewer_run", {"reran": bool, "run": object}, _CLEAR)
