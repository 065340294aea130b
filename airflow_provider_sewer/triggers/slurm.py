"""Trigger that waits for the end of a Slurm job and logs its output meanwhile."""

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
from airflow_provider_sewer.execution.job_messages import line_logger
from airflow_provider_sewer.execution.supervisor_sockets import SupervisorSockets
from airflow_provider_sewer.execution.task_log import log_output
from airflow_provider_sewer.hooks.task_state import UserRequest, read_task_state
from airflow_provider_sewer.slurm.arrays.coordinator import ArrayCoordinator
from airflow_provider_sewer.slurm.arrays.registration import elements_of, write_element
from airflow_provider_sewer.slurm.cancellation import cancel_soon
from airflow_provider_sewer.slurm.client import require_slurm
from airflow_provider_sewer.slurm.job import Job, PendingJob
from airflow_provider_sewer.slurm.job_result import JobResult
from airflow_provider_sewer.slurm.job_spec import wait_policy_of
from airflow_provider_sewer.slurm.log_tailer import TriggerLog
from airflow_provider_sewer.slurm.monitor import JobMonitor
from airflow_provider_sewer.slurm.status_poller import Backoff, subscribe
from airflow_provider_sewer.triggers.encrypted_fields import decrypt_secrets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from airflow_provider_sewer.core.slurm_settings import SlurmSettings
    from airflow_provider_sewer.execution.output import Stream
    from airflow_provider_sewer.slurm.monitor import WaitPolicy
    from airflow_provider_sewer.slurm.status_poller import StatusUpdate

#: Class path stored in Airflow's database; it stays even if the class moves.
_PATH = "airflow_provider_sewer.triggers.slurm.SlurmJobTrigger"
_ARGUMENTS = f"the arguments of {_PATH}"
#: Seconds between the last line logged here and the event: Airflow closes a trigger's log when its event arrives, and
#: drops lines still in transit.
_LOG_ARRIVES = 2.0
#: Seconds after which a scheduler has noticed that a worker is done, unless it is overloaded.
_SCHEDULER_NOTICES = 10.0
#: Latest time of the event, in seconds before the deadline, so that Airflow can still process it.
_BEFORE_DEADLINE = 5.0

#: Seconds to wait for Airflow's answer in ``on_kill``; the triggerer gives that method 30 s (``on_kill_timeout``).
_ASK_TIMEOUT = 25.0
#: Interval in seconds at which an attempt waiting for its array is checked for cancellation.
_CANCEL_CHECK_INTERVAL = 1.0

#: Threads for file access, separate from those of other providers' triggers. Many of them may hang on a file system
#: before the others have to wait.
_THREADS = ThreadPoolExecutor(max_workers=64, thread_name_prefix="sewer-trigger")

_Value = TypeVar("_Value")

_log = logging.getLogger(__name__)


class SlurmJobTrigger(BaseTrigger):
    """Trigger that monitors a job to its end. A pending array member is first submitted as an array task.

    Another triggerer can take over at any time: the log offsets are stored in the job directory, everything else in the
    arguments.

    :param job: the job, as returned by :meth:`Job.to_dict <airflow_provider_sewer.slurm.job.Job.to_dict>`.
    :param module: the module it runs.
    :param settings: the resolved Slurm settings, as returned by
        :func:`~airflow_provider_sewer.core.serialization.slurm_to_data`.
    :param secrets: values to mask, as returned by
        :func:`~airflow_provider_sewer.triggers.encrypted_fields.encrypt_secrets`.
    :param deadline: end of the deferral, in seconds since the epoch.
    :param stored: the version of these arguments, and arguments of another version.
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
        """Return the class path and arguments with which another triggerer resumes."""
        arguments = {
            "job": self._data,
            "module": self._module,
            "settings": self._settings,
            "secrets": self._secrets,
            "deadline": self._deadline,
        }
        return _PATH, {**JOB_TRIGGER.written(arguments), VERSION_KEY: self._format}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the job's end and fire once, with the job and its result."""
        try:
            job_result = await self._result_when_resumable()
        except BaseException:
            # A stopped triggerer leaves the job to the next one, and a failure here resumes the task on a worker. Under
            # `airflow dags test` there is neither, so the job has to be cancelled.
            if self.trigger_id is None:
                await self.on_kill()
            raise
        yield TriggerEvent(job_result.to_event(self._data))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Cancel the job if a user has marked or cleared the task.

        Airflow also calls this in a paused triggerer whose triggers were assigned to another one; then the job is left
        to that one (apache/airflow#73454). About a second later Airflow cancels this method; the cancellation of the
        job continues.
        """
        if _settings_of(self._settings).on_kill_action == "keep_job":
            _log.info("Keeping the job: on_kill_action is 'keep_job'")
            return
        job = Job.from_dict(self._data)
        try:
            message: str = await asyncio.wrap_future(cancel_soon(job, partial(self._reason_to_keep, job)))
            _log.info(message)
        except asyncio.CancelledError:
            _log.info("Cancelling %s in the background; Airflow has stopped waiting for it", job)
            raise

    def _reason_to_keep(self, job: Job | PendingJob) -> str | None:
        if self.trigger_id is None:  # `airflow dags test`, stopped by its user
            return None
        state = read_task_state(self.task_instance, _ASK_TIMEOUT)
        if state.request is not UserRequest.NONE:
            return None
        return f"Leaving {job} to the next process that monitors it; task state in Airflow: {state.text}"

    async def _result_when_resumable(self) -> JobResult:
        began = time.monotonic()
        try:
            job_result = await self._wait_for_result()
        except Exception:  # Airflow resumes the task in this case, too
            await self._wait_until_resumable(began)
            raise
        await self._wait_until_resumable(began)
        return job_result

    async def _wait_for_result(self) -> JobResult:
        JOB_TRIGGER.read(_ARGUMENTS, self.serialize()[1])  # on an error, a worker monitors the job by its job directory
        job = await _in_thread(self._job)
        if isinstance(job, PendingJob):
            try:
                job = await self._array_task(job)
            except SewerError as error:
                return JobResult.of_error(error, job.directory)
        self._data = job.to_dict()
        return await self._follow(job, _settings_of(self._settings))

    def _job(self) -> Job | PendingJob:
        job = Job.from_dict(self._data)
        if job.cluster.kind == "slurm":
            require_slurm()  # on an error, the worker, which had the commands, monitors the job
        return next(elements_of([job]), job) if isinstance(job, PendingJob) else job

    async def _array_task(self, waiting: PendingJob) -> Job:
        """Wait until an attempt is an element of an array."""
        self._log_line(f"{waiting}; job directory: {waiting.directory.path}")
        news: _News[str | Job | SewerError] = _News()
        wait = ArrayCoordinator.of(waiting).wait(waiting.directory.path, news.put)
        try:
            while True:
                for item in await news.get(_CANCEL_CHECK_INTERVAL):
                    if isinstance(item, SewerError):
                        raise item
                    self._log_line(item if isinstance(item, str) else f"{item}")
                    if isinstance(item, Job):
                        return await _in_thread(write_element, item)
                if await _in_thread(_is_cancelled, waiting):
                    path = waiting.directory.path
                    raise SlurmCancelled(f"{waiting.name} was cancelled before it was submitted", run_directory=path)
        finally:
            wait.close()

    async def _follow(self, job: Job, slurm: SlurmSettings) -> JobResult:
        monitor = await _in_thread(self._monitor, job, wait_policy_of(slurm))
        news: _News[StatusUpdate] = _News()
        subscription = subscribe(job, news.put, slurm)
        backoff = Backoff(slurm.poll_interval or 0.0)
        update = None
        try:
            while (job_result := await _in_thread(monitor.poll, update)) is None:
                if monitor.wants_poll:
                    subscription.poll_now()
                updates = await news.get(backoff.next(has_news=update is not None))
                update = updates[-1] if updates else None
        finally:
            subscription.close()
            monitor.stop()
        return job_result

    async def _wait_until_resumable(self, began: float) -> None:
        """Wait until Airflow can resume the task safely.

        If a task is queued again before the scheduler has noticed that the worker which deferred it is done, the
        scheduler takes it for killed and fails it. This holds up to Airflow 3.3.2: apache/airflow#66374, #71580 and
        #72716 report 3 to 7 s, #67287 reports 27 s. No API exposes the scheduler's state.
        """
        if self.trigger_id is not None:  # otherwise there is no scheduler
            noticed = began + _SCHEDULER_NOTICES - time.monotonic()
            left = min(noticed, (self._deadline or math.inf) - _BEFORE_DEADLINE - time.time())
            if left > _LOG_ARRIVES:
                self._log_line(f"Resuming the task in {left:.0f} s, after the scheduler has noticed the deferral")
            await asyncio.sleep(max(0.0, left))
        await asyncio.sleep(max(0.0, self._logged + _LOG_ARRIVES - time.monotonic()))

    def _monitor(self, job: Job, wait_policy: WaitPolicy) -> JobMonitor:
        # The worker logs the rest, as lines logged here may be lost.
        return JobMonitor(
            job,
            self._module,
            wait_policy,
            self._log_output,
            self._log_line,
            decrypt_secrets(self._secrets, job.directory),
            trigger_log=TriggerLog(SupervisorSockets().supervisor()),
            try_number=getattr(self.task_instance, "try_number", 0),
        )

    def _log_output(self, stream: Stream, pieces: Sequence[str]) -> None:
        self._logged = time.monotonic()
        log_output(stream, pieces)

    def _log_line(self, line: str) -> None:
        self._logged = time.monotonic()
        line_logger(_log)(line)


def _settings_of(data: Any) -> SlurmSettings:
    with JOB_TRIGGER.reading(_ARGUMENTS):
        return slurm_of_data(data)


def _is_cancelled(waiting: PendingJob) -> bool:
    return waiting.directory.is_cancelled


async def _in_thread(function: Callable[..., _Value], *arguments: Any) -> _Value:
    """Call a blocking function in a thread, in the context by which the triggerer finds the task's log."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_THREADS, context.run, function, *arguments)


class _News(Generic[_Value]):
    """Queue from other threads to a coroutine of this event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._unread: list[_Value] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: _Value) -> None:
        """Add an item; callable from any thread."""
        with suppress(RuntimeError):  # the loop is closed; other subscribers still get the update
            self._loop.call_soon_threadsafe(self._take, item)

    async def get(self, timeout: float | None = None) -> list[_Value]:  # noqa: ASYNC109 - a timeout is no error here
        """Wait for items and return all of them; an empty list after the timeout.

        :func:`asyncio.timeout` is not used, as it costs more than the poll of a job that follows.
        """
        if not self._unread:
            waiter = self._waiter = self._loop.create_future()
            clock = None if timeout is None else self._loop.call_later(timeout, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if clock is not None:
                    clock.cancel()
        items, self._unread = self._unread, []
        return items

    def _take(self, item: _Value) -> None:
        self._unread.append(item)
        if self._waiter is not None:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
