"""How often a job is looked at: its files at growing pauses, Slurm's word for it when the watcher of all has it."""

from __future__ import annotations

from queue import Empty
from typing import TYPE_CHECKING

from airflow_provider_sewer.slurm.status_poller import StatusPoller

if TYPE_CHECKING:
    from collections.abc import Callable
    from queue import SimpleQueue

    from airflow_provider_sewer.core.slurm_settings import SlurmSettings
    from airflow_provider_sewer.slurm.job import Job
    from airflow_provider_sewer.slurm.status_poller import StatusUpdate, Subscription

#: Seconds between two looks at the files of a job: at first, and the factor by which that grows up to `poll_interval`.
FIRST_LOOK, _LOOKS_GROWTH = 0.2, 1.5
#: Seconds between two looks at the processes of this machine, which cost little.
_LOCAL_INTERVAL = 1.0


class Backoff:
    """How long to wait between two looks at the files of a job: shortly at first, then longer.

    :param longest: seconds.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._pause = FIRST_LOOK

    def next(self, *, has_news: bool) -> float:
        """Return the seconds until the next look.

        :param has_news: whether the last one brought something new.
        """
        pause = self._pause = min(FIRST_LOOK if has_news else self._pause * _LOOKS_GROWTH, self._longest)
        return pause


def subscribe(job: Job, on_view: Callable[[StatusUpdate], None], slurm: SlurmSettings) -> Subscription:
    """Have a job watched by the watcher of its cluster, at the intervals that the settings say.

    :param on_view: told each view that is not as the last one, in the watcher's thread.
    """
    shortest, longest = slurm.poll_interval or 0.0, slurm.max_poll_interval or 0.0
    if job.cluster.kind == "local":
        shortest = longest = min(shortest, _LOCAL_INTERVAL)
    last: list[StatusUpdate] = []

    def tell(view: StatusUpdate) -> None:
        if last != [view]:
            last[:] = [view]
            on_view(view)

    return StatusPoller.of(job.cluster).subscribe(job.ref, tell, shortest=shortest, longest=longest)


def latest_update(news: SimpleQueue[StatusUpdate | None], timeout: float) -> StatusUpdate | None:
    """Wait for a view, or for ``None``, which only ends the waiting, and return the newest view."""
    try:
        view = news.get(timeout=timeout)
        while True:
            view = (news.get_nowait() or view) if not news.empty() else view
            if news.empty():
                return view
    except Empty:
        return None
