"""Wait in the triggerer until a job has ended, and log what it writes meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_sewer.core.errors import SewerError, SlurmCancelled
from airflow_provider_sewer.core.formats import JOB_TRIGGER, VERSION_KEY
from airflow_provider_sewer.core.serialization import slurm_of_data
from airflow_provider_sewer.execution.log_lines import line_logger
from airflow_provider_sewer.execution.supervisor_sockets import SupervisorSockets
from airflow_provider_sewer.execution.task_log import log_output
from airflow_provider_sewer.hooks.task_state import UserRequest, read_task_state
from airflow_provider_sewer.slurm.arrays.coordinator import ArrayCoordinator
from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob, write_element
from airflow_provider_sewer.slurm.cancellation import cancel_soon
from airflow_provider_sewer.slurm.client import require_slurm
from airflow_provider_sewer.slurm.job import Job
from airflow_provider_sewer.slurm.job_result import JobResult
from airflow_provider_sewer.slurm.job_spec import wait_policy_of
from airflow_provider_sewer.slurm.log_tailer import TriggerLog
from airflow_provider_sewer.slurm.monitor import JobMonitor
from airflow_provider_sewer.slurm.polling import Backoff, subscribe
from airflow_provider_sewer.slurm.submitted_job import end_to_data, job_from_data, job_to_data
from airflow_provider_sewer.triggers.encrypted_fields import decrypt_secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from airflow_provider_sewer.core.slurm_settings import SlurmSettings
    from airflow_provider_sewer.execution.output import Stream
    from airflow_provider_sewer.slurm.status_poller import StatusUpdate

#: Where Airflow finds the class for what is in its database: it stays, wherever the class is.
_PATH = "airflow_provider_sewer.triggers.slurm.SlurmJobTrigger"
_ARGUMENTS = f"the arguments of {_PATH}"
#: Seconds between the last line that is logged here and the event: Airflow lets go of a trigger's log when its event
#: comes, with what is still on its way to it.
_LOG_ARRIVES = 2.0
#: Seconds after which a scheduler has noticed that a worker is done, unless there is far too much for it to do.
_SCHEDULER_NOTICES = 10.0
#: Seconds before the deadline at which the event is due at the latest, for Airflow to take it in.
_BEFORE_DEADLINE = 5.0

#: Seconds to wait for Airflow's answer in ``on_kill``; the triggerer gives that method 30 s (``on_kill_timeout``).
_ASK_TIMEOUT = 25.0
#: Seconds between two looks at whether an attempt that waits for its array is cancelled.
_CANCELLED_EVERY = 1.0

#: Files are looked at in threads of our own, which others' triggers do not need; of those that wait for a file
#: system that hangs, there can be many before the rest has to wait too.
_THREADS = ThreadPoolExecutor(max_workers=64, thread_name_prefix="sewer-trigger")

_Value = TypeVar("_Value")

_log = logging.getLogger(__name__)


class SlurmJobTrigger(BaseTrigger):
    """Follows a job to its end; one that is to be an element of an array is first made one.

    It can be taken over by another triggerer at any moment: how far the output has been logged is noted
    in the run directory, and everything else stands in its arguments.

    :param job: the job, as :func:`~airflow_provider_sewer.slurm.submitted_job.job_to_data` writes it.
    :param module: the module it runs.
    :param settings: the Slurm settings, all of them said, as
        :func:`~airflow_provider_sewer.core.serialization.slurm_to_data` writes them.
    :param secrets: values to mask, as :func:`~airflow_provider_sewer.triggers.encrypted_fields.encrypt_secrets`
        returns them.
    :param deadline: when Airflow waits no longer, in seconds since the epoch.
    :param stored: the version of these arguments, and those of another version.
    """

    def __init__(
        self,
        job: dict[str, Any],
        module: str,
        settings: dict[str, Any],
        secrets: str | None = None,
        deadline: float | None = None,
        **stored: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._format = stored.get(VERSION_KEY, JOB_TRIGGER.version)
        self._data = job
        self._module = module
        self._settings = settings
        self._secrets = secrets
        self._deadline = deadline
        self._logged = -math.inf

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what another triggerer needs to go on."""
        arguments = {
            "job": self._data,
            "module": self._module,
            "settings": self._settings,
            "secrets": self._secrets,
            "deadline": self._deadline,
        }
        return _PATH, {**JOB_TRIGGER.written(arguments), VERSION_KEY: self._format}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the job's end and fire once, with the job and how it ended."""
        try:
            ending = await self._follow_as_long_as_airflow_wants()
        except BaseException:
            # A triggerer that stops leaves the job to the next one, and what fails there is told to a worker. Under
            # `airflow dags test` there is neither, and nobody would come for the job.
            if self.trigger_id is None:
                await self.on_kill()
            raise
        yield TriggerEvent(end_to_data(job_from_data(self._data), ending))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the job if a user has marked the task or cleared it.

        A triggerer that was paused is asked the same when another triggerer follows the job by now; then the job is
        left to that one (apache/airflow#73454). Airflow cancels this method in turn when it comes round again, about a
        second later; what is begun here continues.
        """
        if self._slurm.on_kill_action == "keep_job":
            _log.info("The job goes on: on_kill_action is 'keep_job'")
            return
        job = job_from_data(self._data)
        try:
            said: str = await asyncio.wrap_future(cancel_soon(job, partial(self._why_not_cancelled, job)))
            _log.info(said)
        except asyncio.CancelledError:
            _log.info("%s is being cancelled; Airflow waits no longer to hear of it", job)
            raise

    def _why_not_cancelled(self, job: Job | PendingJob) -> str | None:
        if self.trigger_id is None:  # `airflow dags test`, whose user has stopped it
            return None
        state = read_task_state(self.task_instance, _ASK_TIMEOUT)
        if state.request is not UserRequest.NONE:
            return None
        return f"Leaving {job} to the process that follows it next; Airflow has the task as {state.text}"

    async def _follow_as_long_as_airflow_wants(self) -> JobResult:
        began = time.monotonic()
        try:
            ending = await self._follow_to_its_end()
        except Exception:  # Airflow goes on with the task then as well
            await self._until_airflow_can_take_it(began)
            raise
        await self._until_airflow_can_take_it(began)
        return ending

    async def _follow_to_its_end(self) -> JobResult:
        JOB_TRIGGER.read(_ARGUMENTS, self.serialize()[1])  # if not, a worker follows the job by its run directory
        job = await _in_thread(self._job)
        if isinstance(job, PendingJob):
            try:
                job = await self._array_task(job)
            except SewerError as error:
                return JobResult.of_error(error, job.directory)
        self._data = job_to_data(job)
        return await self._follow(job)

    def _job(self) -> Job | PendingJob:
        job = job_from_data(self._data)
        if job.cluster.kind == "slurm":
            require_slurm()  # if not, the worker, where they were, has to follow the job
        return (job.look_up() or job) if isinstance(job, PendingJob) else job

    async def _array_task(self, waiting: PendingJob) -> Job:
        """Wait until an attempt is an element of an array."""
        self._say(f"{waiting}; job directory: {waiting.directory.path}")
        news: _News[str | Job | SewerError] = _News()
        wait = ArrayCoordinator.of(waiting).wait(waiting.directory.path, news.put)
        try:
            while True:
                for told in await news.get(_CANCELLED_EVERY):
                    if isinstance(told, SewerError):
                        raise told
                    self._say(told if isinstance(told, str) else f"{told}")
                    if isinstance(told, Job):
                        return await _in_thread(write_element, told)
                if await _in_thread(_is_cancelled, waiting):
                    path = waiting.directory.path
                    raise SlurmCancelled(f"{waiting.name} was cancelled before it was submitted", run_directory=path)
        finally:
            wait.close()

    async def _follow(self, job: Job) -> JobResult:
        follower = await _in_thread(self._follower, job)
        news: _News[StatusUpdate] = _News()
        watch = subscribe(job, news.put, self._slurm)
        pauses = Backoff(self._slurm.poll_interval or 0.0)
        view = None
        try:
            while (ending := await _in_thread(follower.poll, view)) is None:
                if follower.wants_poll:
                    watch.poll_now()
                views = await news.get(pauses.next(has_news=view is not None))
                view = views[-1] if views else None
        finally:
            watch.close()
            follower.stop()
        return ending

    async def _until_airflow_can_take_it(self, began: float) -> None:
        """Wait until it does no harm if Airflow goes on with the task.

        A scheduler that finds a task queued again when it notices that the worker which has deferred it is done takes
        that for killed, and fails it (up to Airflow 3.3.2; apache/airflow#66374, #71580 and #72716 tell of 3 to 7 s,
        #67287 of 27). No API tells whether it has.
        """
        if self.trigger_id is not None:  # otherwise there is no scheduler
            noticed = began + _SCHEDULER_NOTICES - time.monotonic()
            left = min(noticed, (self._deadline or math.inf) - _BEFORE_DEADLINE - time.time())
            if left > _LOG_ARRIVES:
                self._say(f"The task goes on in {left:.0f} s, when the scheduler has surely noticed that it waits here")
            await asyncio.sleep(max(0.0, left))
        await asyncio.sleep(max(0.0, self._logged + _LOG_ARRIVES - time.monotonic()))

    def _follower(self, job: Job) -> JobMonitor:
        # The worker logs the rest, where nothing of it can be lost.
        return JobMonitor(
            job,
            self._module,
            wait_policy_of(self._slurm),
            self._log_output,
            self._say,
            decrypt_secrets(self._secrets, job.directory),
            trigger_log=TriggerLog(SupervisorSockets().supervisor()),
            try_number=getattr(self.task_instance, "try_number", 0),
        )

    def _log_output(self, stream: Stream, pieces: Sequence[str]) -> None:
        self._logged = time.monotonic()
        log_output(stream, pieces)

    def _say(self, line: str) -> None:
        self._logged = time.monotonic()
        line_logger(_log)(line)

    @property
    def _slurm(self) -> SlurmSettings:
        with JOB_TRIGGER.reading(_ARGUMENTS):
            return slurm_of_data(self._settings)


def _is_cancelled(waiting: PendingJob) -> bool:
    return waiting.directory.is_cancelled


async def _in_thread(function: Callable[..., _Value], *arguments: Any) -> _Value:
    """Call a function that blocks, with the context by which the triggerer knows whose log it writes."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_THREADS, context.run, function, *arguments)


class _News(Generic[_Value]):
    """What other threads have to tell a coroutine of this event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._untold: list[_Value] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, one: _Value) -> None:
        """Tell something; from any thread."""
        with suppress(RuntimeError):  # the loop has been closed meanwhile; others go on to be told
            self._loop.call_soon_threadsafe(self._take, one)

    async def get(self, timeout: float | None = None) -> list[_Value]:  # noqa: ASYNC109 - there may be no news
        """Wait until there is something new, and return all of it; nothing if that takes too long.

        No :func:`asyncio.timeout`, which costs more than the look at a job that follows.
        """
        if not self._untold:
            waiter = self._waiter = self._loop.create_future()
            clock = None if timeout is None else self._loop.call_later(timeout, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if clock is not None:
                    clock.cancel()
        told, self._untold = self._untold, []
        return told

    def _take(self, one: _Value) -> None:
        self._untold.append(one)
        if self._waiter is not None:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
