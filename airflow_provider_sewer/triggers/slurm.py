"""Wait in the triggerer until a job has ended, and log what it writes meanwhile."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_sewer.core.slurm import SlurmSettings
from airflow_provider_sewer.hooks.sewer import SewerHook
from airflow_provider_sewer.runners.slurm.following import JobFollower
from airflow_provider_sewer.runners.slurm.run import Pauses, cancel, job_from_data, patience_of, watched
from airflow_provider_sewer.runners.task_log import log_output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_sewer.runners.slurm.following import Ending, Job
    from airflow_provider_sewer.runners.slurm.watcher import View

#: Seconds that cancelling may take; Airflow waits 30 for ``on_kill``.
_CANCEL_TIMEOUT = 20.0

_log = logging.getLogger(__name__)


class SlurmJobTrigger(BaseTrigger):
    """Follows a job to its end.

    It can be taken over by another triggerer at any moment: how far the output has been logged is noted
    in the run directory, and everything else stands in its arguments.

    :param job: the job, as :func:`~airflow_provider_sewer.runners.slurm.run.job_to_data` writes it.
    :param module: the module it runs.
    :param settings: the Slurm settings, all of them said.
    :param sewer_conn_id: the connection whose secrets are to be masked.
    """

    def __init__(
        self, job: dict[str, Any], module: str, settings: dict[str, Any], sewer_conn_id: str | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._data = job
        self._module = module
        self._settings = settings
        self._sewer_conn_id = sewer_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "job": self._data,
            "module": self._module,
            "settings": self._settings,
            "sewer_conn_id": self._sewer_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the job's end and fire once, with how it ended."""
        ending = await self._follow()
        yield TriggerEvent({"ending": ending._asdict()})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the job: somebody has marked the task or cleared it."""
        if self._slurm.on_kill_action == "keep_job":
            _log.info("The job goes on: on_kill_action is 'keep_job'")
            return
        await asyncio.to_thread(cancel, self._job, _log.info, timeout=_CANCEL_TIMEOUT)

    async def _follow(self) -> Ending:
        hook = await SewerHook(self._sewer_conn_id).aload() if self._sewer_conn_id else None
        secrets = tuple(hook.secret_env.values()) if hook else ()
        job = self._job
        follower = JobFollower(job, self._module, patience_of(self._slurm), log_output, _log.info, secrets)
        news: asyncio.Queue[View] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def hand_over(view: View) -> None:
            loop.call_soon_threadsafe(news.put_nowait, view)

        watch = watched(job, hand_over, self._slurm)
        pauses = Pauses(self._slurm.poll_interval or 0.0)
        view = None
        try:
            while (ending := await asyncio.to_thread(follower.look, view)) is None:
                if follower.wants_news:
                    watch.hurry()
                view = await _latest(news, pauses.next(has_news=view is not None))
        finally:
            watch.close()
        return ending

    @property
    def _job(self) -> Job:
        return job_from_data(self._data)

    @property
    def _slurm(self) -> SlurmSettings:
        return SlurmSettings(**self._settings)


async def _latest(news: asyncio.Queue[View], timeout: float) -> View | None:  # noqa: ASYNC109 - there may be no news
    """Wait for a view, and return the newest one."""
    try:
        view = await asyncio.wait_for(news.get(), timeout)
    except TimeoutError:
        return None
    while not news.empty():
        view = news.get_nowait()
    return view
