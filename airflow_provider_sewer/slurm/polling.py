"""Poll intervals of a job: growing pauses for its files, and status updates of the shared poller."""

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

#: Seconds between two polls of the files of a job: at first, and the factor by which that grows up to `poll_interval`.
FIRST_PAUSE, _GROWTH = 0.2, 1.5
#: Seconds between two polls of the processes of this machine, which cost little.
_LOCAL_INTERVAL = 1.0


class Backoff:
    """Pauses between two polls of the files of a job, which grow.

    :param longest: seconds.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._pause = FIRST_PAUSE

    def next(self, *, has_news: bool) -> float:
        """Return the seconds until the next poll.

        :param has_news: whether the last one gave a new status.
        """
        pause = self._pause = min(FIRST_PAUSE if has_news else self._pause * _GROWTH, self._longest)
        return pause


def subscribe(job: Job, on_update: Callable[[StatusUpdate], None], slurm: SlurmSettings) -> Subscription:
    """Subscribe to a job at the poller of its cluster, with the intervals of the settings.

    :param on_update: called with each update that differs from the last one, in the poller's thread.
    """
    shortest, longest = slurm.poll_interval or 0.0, slurm.max_poll_interval or 0.0
    if job.cluster.kind == "local":
        shortest = longest = min(shortest, _LOCAL_INTERVAL)
    last: list[StatusUpdate] = []

    def notify(update: StatusUpdate) -> None:
        if last != [update]:
            last[:] = [update]
            on_update(update)

    return StatusPoller.of(job.cluster).subscribe(job.ref, notify, shortest=shortest, longest=longest)


def latest_update(news: SimpleQueue[StatusUpdate | None], timeout: float) -> StatusUpdate | None:
    """Wait for an update, or for ``None``, which only ends the wait, and return the latest update."""
    try:
        update = news.get(timeout=timeout)
        while True:
            update = (news.get_nowait() or update) if not news.empty() else update
            if news.empty():
                return update
    except Empty:
        return None
