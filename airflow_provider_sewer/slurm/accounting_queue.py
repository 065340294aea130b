"""Queue for queries of accounting: one thread of this process at a time, with pauses while it does not answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, TypeVar

from airflow_provider_sewer.execution.thread_slots import Slots
from airflow_provider_sewer.slurm.backend import SlurmUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.backend import JobBackend

_Answer = TypeVar("_Answer")

#: Seconds until accounting is queried again after it has not answered, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class AccountingQueue:
    """Queue in which the threads of this process query the accounting of one cluster.

    A query that hangs takes up to 20 s. So it holds none of the slots that submissions need, and a query without answer
    counts for all threads until the pause after it is over.
    """

    _all: ClassVar[dict[tuple[str, ...], AccountingQueue]] = {}

    def __init__(self) -> None:
        self._slots = Slots(1)
        self._again = 0.0
        self._pause = 0.0
        self._error = ""

    @classmethod
    def of(cls, cluster: JobBackend) -> AccountingQueue:
        """Return the queue of a cluster."""
        return cls._all.get(cluster.key) or cls._all.setdefault(cluster.key, cls())

    def ask(self, query: Callable[[], _Answer], check: Callable[[], None] = lambda: None) -> _Answer:
        """Return the answer to a query, in turn.

        :param check: called several times a second until then; raises to end the wait.
        :raises SlurmUnreachable: when there was no answer, or none to another query a moment ago.
        """
        with self._slots.taken(check):
            if time.monotonic() < self._again:
                raise SlurmUnreachable(self._error)
            try:
                answer = query()
            except SlurmUnreachable as error:
                self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
                self._again = time.monotonic() + self._pause
                self._error = str(error)
                raise
            self._pause = 0.0
            return answer
