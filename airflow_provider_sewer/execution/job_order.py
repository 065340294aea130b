"""Identity of a run's jobs, and the order among jobs that are submitted ahead."""

from __future__ import annotations

import enum
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class RunIdentity(NamedTuple):
    """Identity of a run's jobs, by which the next run finds them.

    :param workflow: the workflow's name.
    :param series: an identifier that all runs with the same state file share.
    :param run: an identifier that a run shares only with the runs that resume it.
    """

    workflow: str
    series: str
    run: str


class _Signal(enum.Enum):
    RELEASED = "released"
    ABORTED = "aborted"


class AheadSlot:
    """State of a task that may be submitted ahead of its upstream tasks.

    :param before: the slots of its upstream tasks that have not ended; empty if the task is ready.
    :param has_rerun_upstream: whether an upstream task ran again, so that a job of an earlier run is not reusable.
    """

    def __init__(self, before: Iterable[AheadSlot] = (), *, has_rerun_upstream: bool = False) -> None:
        self._before = list(before)
        self._has_rerun_upstream = has_rerun_upstream
        self._is_submitted = threading.Event()
        self._signal: SimpleQueue[_Signal] = SimpleQueue()  # which a signal handler may put into as well
        self.job_id: str | None = None
        self.rerun = True

    def record_job(self, job_id: str, *, is_taken_up: bool) -> None:
        """Record the job of this task.

        :param is_taken_up: whether the task was reattached to a job of an earlier run.
        """
        self.job_id = job_id
        self.rerun = not is_taken_up
        self._is_submitted.set()

    def record_end(self) -> None:
        """Record that this task has ended, with or without a job."""
        self._is_submitted.set()

    def jobs_before(self) -> list[str]:
        """Wait until the upstream tasks are submitted, and return their job ids; empty if one has no job."""
        for slot in self._before:
            slot._is_submitted.wait()
        ids = [slot.job_id for slot in self._before if slot.job_id is not None]
        return ids if len(ids) == len(self._before) else []

    @property
    def has_rerun_upstream(self) -> bool:
        """Return whether an upstream task ran or will run again; known once all of them are submitted."""
        return self._has_rerun_upstream or any(slot.rerun for slot in self._before)

    def release(self) -> None:
        """Release the task: its upstream tasks have all succeeded."""
        self._signal.put(_Signal.RELEASED)

    def abort(self) -> None:
        """Abort the wait after an upstream failure or a stop request."""
        self._signal.put(_Signal.ABORTED)

    def wait(self) -> bool:
        """Wait for a release or an abort, and return whether the task was released."""
        return not self._before or self._signal.get() is _Signal.RELEASED
