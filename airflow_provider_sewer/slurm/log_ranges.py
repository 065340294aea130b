"""Parts of a job's output that each triggerer has logged, and those of them that Airflow has removed again.

A triggerer has its own log file for each try. Airflow empties the file when the same triggerer starts a trigger of the
try again: ``TriggerLoggingFactory`` opens it with ``wb`` (Airflow 3.3.2, `triggerer_job_runner.py`).
"""

from __future__ import annotations

from typing import Any

from airflow_provider_sewer.execution.output import Stream

#: Limit on offsets in files, in bytes.
LARGEST_OFFSET = 2**63

_Ranges = dict[str, list[list[int]]]  # of each stream: begins and ends, in bytes


class LogRanges:
    """Parts of the output in the log files of triggerers, and parts that are no longer in any file.

    :param data: data of :meth:`to_data`; any other value counts as no parts.
    """

    def __init__(self, data: Any = None) -> None:
        data = data if isinstance(data, dict) else {}
        triggerers = data.get("triggerers")
        self._triggerers = {
            str(name): _checked(ranges) for name, ranges in (triggerers if isinstance(triggerers, dict) else {}).items()
        }
        self._removed = _checked(data.get("removed"))

    def to_data(self) -> dict[str, Any]:
        """Return the data for JSON; empty if there are no parts."""
        triggerers = {name: _checked(ranges) for name, ranges in self._triggerers.items()}
        if not triggerers and not self.next_removed():
            return {}
        return {"triggerers": triggerers, "removed": _checked(self._removed)}

    def add(self, triggerer: str, stream: Stream, begin: int, end: int) -> None:
        """Record that this triggerer has logged a part."""
        if begin < end:
            _add(self._triggerers.setdefault(triggerer, _checked(None))[stream.value], begin, end)

    def remove(self, triggerer: str) -> None:
        """Record that the log file of this triggerer is empty."""
        for stream, parts in self._triggerers.pop(triggerer, {}).items():
            for begin, end in parts:
                _add(self._removed[stream], begin, end)

    def next_removed(self) -> tuple[Stream, int, int] | None:
        """Return a part to log again: stream, begin and end."""
        for stream in Stream:
            for begin, end in self._removed[stream.value]:
                return stream, begin, end
        return None

    def restore(self, stream: Stream, end: int) -> None:
        """Record that the first removed part of a stream has been logged again, up to this byte."""
        first = self._removed[stream.value][0]
        first[0] = end
        if first[0] >= first[1]:
            del self._removed[stream.value][0]


def _add(parts: list[list[int]], begin: int, end: int) -> None:
    if parts and parts[-1][1] == begin:
        parts[-1][1] = end
    else:
        parts.append([begin, end])


def _checked(data: Any) -> _Ranges:
    """Return the well-formed parts of each stream."""
    given = data if isinstance(data, dict) else {}
    parts = {stream.value: given.get(stream.value) for stream in Stream}
    lists = {name: each if isinstance(each, list) else [] for name, each in parts.items()}
    return {name: [list(part) for part in each if _is_part(part)] for name, each in lists.items()}


def _is_part(data: Any) -> bool:
    match data:
        case [int(begin), int(end)]:
            return 0 <= begin < end < LARGEST_OFFSET
    return False
