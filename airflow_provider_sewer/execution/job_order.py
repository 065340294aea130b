"""What the jobs of one run are known by, and the order among them where some are submitted before their turn."""

from __future__ import annotations

import enum
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class RunIdentity(NamedTuple):
    """What the jobs of a run are known by, so that the next run finds them.

    :param workflow: the workflow's name.
    :param series: what stays the same from run to run, as long as they use one state file.
    :param run: what stays the same only as long as a run is resumed.
    """

    workflow: str
    series: str
    run: str


class _Word(enum.Enum):
    COME = "come"
    CALLED_OFF = "called off"


class AheadSlot:
    """The place of a task in a run: what is before it and still under way, and whether its own turn has come.

    :param before: the places of the tasks before it that have not ended yet; none if its turn has come.
    :param is_anew: whether a task before it has run anew, so that no job which an earlier run has left is any use.
    """

    def __init__(self, before: Iterable[AheadSlot] = (), *, is_anew: bool = False) -> None:
        self._before = list(before)
        self._is_anew = is_anew
        self._has_a_job = threading.Event()
        self._word: SimpleQueue[_Word] = SimpleQueue()  # which a signal handler may put into as well
        self.job_id: str | None = None
        self.rerun = True

    def record_job(self, job_id: str, *, is_taken_up: bool) -> None:
        """Note the job of this task.

        :param is_taken_up: whether it is one that an earlier run has left.
        """
        self.job_id = job_id
        self.rerun = not is_taken_up
        self._has_a_job.set()

    def record_end(self) -> None:
        """Note that this task has ended, be it without a job."""
        self._has_a_job.set()

    def jobs_before(self) -> list[str]:
        """Wait until the tasks before this one are submitted, and return their jobs' ids; none if one has no job."""
        for turn in self._before:
            turn._has_a_job.wait()
        ids = [turn.job_id for turn in self._before if turn.job_id is not None]
        return ids if len(ids) == len(self._before) else []

    @property
    def comes_after_new(self) -> bool:
        """Tell whether something before this task has run anew or will; known once that is submitted."""
        return self._is_anew or any(turn.rerun for turn in self._before)

    def release(self) -> None:
        """Let the task go on: those before it have all succeeded."""
        self._word.put(_Word.COME)

    def abort(self) -> None:
        """Let the task wait no longer: one before it has not succeeded, or the run is stopped."""
        self._word.put(_Word.CALLED_OFF)

    def wait(self) -> bool:
        """Wait for the turn, and tell whether it has come."""
        return not self._before or self._word.get() is _Word.COME
