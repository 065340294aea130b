"""Runs a module as a job: reattaches to a previous try's job or submits one, monitors it, and collects its result."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_sewer.core.errors import (
    FileSystemRefused,
    SewerError,
    SlurmCancelled,
    SlurmJobReleased,
    SlurmUnavailable,
    UnreadableRecord,
    key_of,
)
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.secret_detection import masked_text
from airflow_provider_sewer.execution.job_messages import WarningLine
from airflow_provider_sewer.execution.module_result import read_result, reject_missing_result
from airflow_provider_sewer.execution.task_runner import TaskRunner
from airflow_provider_sewer.slurm.arrays.coordinator import ArrayCoordinator
from airflow_provider_sewer.slurm.arrays.registration import ArrayRegistration, write_element
from airflow_provider_sewer.slurm.attempts import Attempts
from airflow_provider_sewer.slurm.backend_choice import backend_of, get_backend
from airflow_provider_sewer.slurm.cancellation import (
    TIMEOUT,
    TIMEOUT_BEFORE_KILL,
    abort_submission,
    cancel_attempt,
    cancel_job,
    cancel_submission,
)
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job import Job, PendingJob
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_products import JobProducts
from airflow_provider_sewer.slurm.job_records import SUCCESS
from airflow_provider_sewer.slurm.job_script import checked_variables
from airflow_provider_sewer.slurm.job_spec import load_task, save_task, wait_policy_of
from airflow_provider_sewer.slurm.job_usage import finished_usage, planned_usage
from airflow_provider_sewer.slurm.last_lines import last_line_between
from airflow_provider_sewer.slurm.log_tailer import JobLogs
from airflow_provider_sewer.slurm.monitor import JobMonitor
from airflow_provider_sewer.slurm.reattach import PreviousAttempt
from airflow_provider_sewer.slurm.retries import RetryRequests
from airflow_provider_sewer.slurm.run_dir import checked_run_dir
from airflow_provider_sewer.slurm.status_poller import Backoff, latest_update, subscribe
from airflow_provider_sewer.slurm.submission import DuplicateJobName, Submission

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.output import Sink
    from airflow_provider_sewer.slurm.attempts import Attempt
    from airflow_provider_sewer.slurm.backend import JobBackend
    from airflow_provider_sewer.slurm.job_records import JobUsage
    from airflow_provider_sewer.slurm.job_result import JobResult
    from airflow_provider_sewer.slurm.job_spec import JobSpec
    from airflow_provider_sewer.slurm.status_poller import StatusUpdate

#: Seconds between two checks whether a waiting attempt is still valid.
_SLICE = 0.2

_News = TypeVar("_News")


class JobRunner:
    """One try at a module that runs as a job.

    :param planned: the job to run.
    :param sink: takes its output while it runs.
    :param notify: takes log lines about it.
    :param supervisor: pid of the parent that this process works for; without it, log lines are lost, and another try
        may already run.
    :param clusters: returns the backend of a kind, ``slurm`` or ``local``.
    :param task_run: runs the task of each attempt, which is not saved then; by default, the task of the specification
        is saved with its attempt, and loaded only where another process has begun the attempt.
    """

    def __init__(
        self,
        spec: JobSpec,
        sink: Sink,
        notify: Callable[[str], None],
        supervisor: int | None = None,
        *,
        clusters: Callable[[str], JobBackend] | None = None,
        task_run: TaskRunner | None = None,
    ) -> None:
        self.spec = spec
        self.has_reattached = False
        self._sink = sink
        self._notify = notify
        self._supervisor = supervisor
        self._clusters = clusters or backend_of
        self._saves_task = task_run is None
        self.task_run = task_run or TaskRunner(spec.task, {}, dag_run=spec.instance[:2])
        self._products_of: dict[str, JobProducts] = {}
        self._secrets_of: dict[str, tuple[str, ...]] = {}
        self._run_dir = os.path.abspath(os.path.expanduser(spec.slurm.run_dir or ""))
        self._attempts = Attempts(self._run_dir, spec.instance, spec.label)
        self._retries = RetryRequests(self._attempts, notify, learns=not spec.is_first_try)
        self._current: JobDirectory | None = None
        self._job: Job | PendingJob | None = None
        self._is_cancelled = False
        self._is_stopped = False
        self._is_let_go = False
        self._is_released = False
        self._news: SimpleQueue[StatusUpdate | None] = SimpleQueue()

    def reattach(self) -> Job | PendingJob | None:
        """Reattach to the previous try's job if it is still valid, else abandon it.

        If there is none, the task may still be changed by :meth:`use`, until :meth:`submit_or_reattach`.

        :raises SlurmUnavailable: when the job's state cannot be determined.
        :raises UnreadableRecord: when a record of that job cannot be read; the job is left as it is.
        """
        self._job = self._reattach()
        return self._job

    def use(self, task: Task) -> None:
        """Submit another task than that of the specification."""
        self.spec = self.spec._replace(task=task)
        self.task_run = TaskRunner(task, {}, dag_run=self.spec.instance[:2])

    def submit_and_wait(self) -> Job:
        """Reattach to the previous try's job if it is still valid, or submit a new one.

        An attempt that is to become an array task is waited for until it is one.

        :raises SlurmUnavailable: when Slurm is required and its commands are missing here.
        :raises SlurmSubmissionRejected: when Slurm rejects the job permanently.
        :raises InvalidTask: when the job's settings are invalid.
        """
        begun = self.submit_or_reattach()
        return self.wait_for_array(begun) if isinstance(begun, PendingJob) else begun

    def submit_or_reattach(self) -> Job | PendingJob:
        """Like :meth:`submit_and_wait`, but leave it to the caller to wait for an array.

        :raises SlurmError: likewise.
        :raises InvalidTask: likewise.
        """
        checked_variables(self.spec.task.settings.env)
        begun = self._job = self._job or self._reattach() or self._submit()
        # Meanwhile a signal handler or another process may have cancelled it; a recorded success stays a success.
        if begun.directory.is_cancelled and not begun.directory.has_success:
            self.cancel()
            raise SlurmCancelled(f"{begun} was cancelled while it was submitted", job_id=_id_of(begun))
        return begun

    def wait_for_array(self, waiting: PendingJob) -> Job:
        """Wait until an attempt is an array task, and take part in the submission of its array.

        :raises SlurmError: when its array will not be submitted, or the wait is aborted.
        """
        self._notify(f"{waiting}; job directory: {waiting.directory.path}")
        news: SimpleQueue[str | Job | SewerError] = SimpleQueue()
        wait = ArrayCoordinator.of(waiting).wait(waiting.directory.path, news.put)
        try:
            while not isinstance(update := _next(news), Job):
                self._check()
                if waiting.directory.is_cancelled:
                    raise SlurmCancelled(f"{waiting} was cancelled", run_directory=waiting.directory.path)
                if isinstance(update, SewerError):
                    raise update
                if update:
                    self._notify(update)
        except SlurmCancelled:
            cancel_job(waiting, self._notify)
            raise
        except SewerError as error:
            if error is update and not isinstance(error, UnreadableRecord):
                self._close(waiting.directory, "failed")
                self._products(waiting.directory).discard()
            raise
        finally:
            wait.close()
        self._job = write_element(update)
        return self._job

    def latest_job(self) -> Job | None:
        """Return the job of the latest attempt, if it has one and is not closed.

        An attempt that waits for its array is waited for.
        """
        attempt = self._attempts.latest()
        if attempt is None:
            return None
        submission = self._submission(attempt)
        found = self._job = submission.reattach() if isinstance(submission, ArrayRegistration) else submission.look_up()
        return self.wait_for_array(found) if isinstance(found, PendingJob) else found

    def follow(self, job: Job) -> JobResult:
        """Monitor a job to its end."""
        planned = self.spec
        monitor = JobMonitor(
            job,
            self.runner_of(job.directory).task.target,
            wait_policy_of(planned.slurm),
            self._sink,
            self._notify,
            self.secrets(job.directory),
            try_number=planned.instance.try_number,
        )
        subscription = subscribe(job, self._news.put, planned.slurm)
        backoff = Backoff(planned.slurm.poll_interval or 0.0)
        update = None
        try:
            while (result := monitor.poll(update)) is None:
                if not monitor.is_holder:
                    raise SlurmJobReleased(f"another process monitors {job}", job_id=job.ref.id)
                self._end_if_stopped(monitor)
                if monitor.wants_poll or self._is_stopped:
                    subscription.poll_now()
                update = latest_update(self._news, backoff.next(has_news=update is not None))
                self._check_released()
        finally:
            subscription.close()
        return result

    @property
    def is_monitored_by_another(self) -> bool:
        """Return whether the process of a later try monitors the job."""
        holder = None if self._job is None else self._job.directory.read_monitor()
        return holder is not None and holder.try_number > self.spec.instance.try_number

    def record_usage(self, result: JobResult) -> JobUsage:
        """Record the usage and the exit class of a job that has ended in its job directory, and return them."""
        directory = JobDirectory(result.run_directory or "")
        saved = directory.read_usage()
        if saved is not None and saved.exit_class:
            return saved
        usage = finished_usage(directory, result.error or SUCCESS, result.node or "", time.time())
        if result.error != key_of(UnreadableRecord):  # otherwise the next try reads its end again
            with suppress(OSError):  # the record only helps
                directory.write_usage(usage)
        return usage

    def collect(self, result: JobResult) -> Any:
        """Return the result of a job that succeeded.

        :raises SlurmError: when it did not succeed.
        :raises ModuleFailed: when its result cannot be read.
        :raises FileSystemRefused: when the file system is full, or the like; the next try then collects the attempt.
        :raises UnreadableRecord: when a record of it cannot be read; the job and its products are left as they are.
        """
        self.record_usage(result)
        directory = JobDirectory(result.run_directory or "")
        products = self._products(directory)
        is_collected = directory.read_ended() == "collected"
        try:
            if result.error:
                raise result.as_error()
            value = self._result(directory)
            value = products.unstage_paths(value) if is_collected else products.commit(value)
        except FileSystemRefused:
            self._notify(
                WarningLine(f"Success in {directory.path} is saved; a retry collects it without running it again")
            )
            raise
        except UnreadableRecord:  # the job may have succeeded: its files stay
            raise
        except SewerError as error:
            self._record_failure(directory, error, result.node)
            self._close(directory, "failed")
            if not is_collected:
                products.discard()
            raise
        self._close(directory, "collected")
        return value

    def has_extra_try(self, result: JobResult, error: SewerError) -> bool:
        """Return whether a new attempt is to follow a failed one within this try; then submit again.

        :raises SlurmRequestLimit: when a retry would request more than ``retry_with`` allows.
        :raises UnreadableRecord: when a record of the attempt cannot be read.
        """
        has_extra = self._retries.has_extra_try(self.spec, JobDirectory(result.run_directory or ""), error)
        if has_extra:
            self._job, self.has_reattached = None, False
        return has_extra

    def reject(self, result: JobResult) -> None:
        """Record that the result of a collected attempt cannot be used, so that the next try submits a new job."""
        self._close(JobDirectory(result.run_directory or ""), "failed")

    def runner_of(self, directory: JobDirectory) -> TaskRunner:
        """Return the runner of the task that an attempt was begun with.

        :raises UnreadableRecord: when its record cannot be read.
        """
        return self._products(directory).run

    def secrets(self, directory: JobDirectory) -> tuple[str, ...]:
        """Return the values of an attempt that must be masked."""
        if directory.path not in self._secrets_of:
            self._secrets_of[directory.path] = self.spec.secrets(self.runner_of(directory).call(None))
        return self._secrets_of[directory.path]

    def _result(self, directory: JobDirectory) -> Any:
        record = directory.read_module_end()
        begin, end = record.module_stdout if record else (0, 0)
        try:
            task = self.runner_of(directory).task
            if task.function is not None:
                return read_result(directory.result, lambda: reject_missing_result(task.target))
            if task.stdout is not None:  # the log can only have stderr, with `stderr_to_stdout`
                return read_result(directory.result, lambda: None)
            secrets = self.secrets(directory)
            return read_result(directory.result, lambda: last_line_between(directory.stdout, begin, end, secrets))
        except OSError as error:
            raise FileSystemRefused(f"its result cannot be read: {error.filename}: {error.strerror}") from None

    def log_rest(self, directory: JobDirectory) -> None:
        """Log the output of the job in a job directory that is not logged yet."""
        JobLogs(directory, self._sink, self.secrets(directory)).finish()

    def _record_failure(self, directory: JobDirectory, error: SewerError, node: str | None) -> None:
        try:
            self._retries.record_failure(directory, error, node)
        except OSError as failed:  # the next try then requests the same again
            self._notify(WarningLine(f"Cannot record the failure of this attempt in its job directory: {failed}"))

    def _close(self, directory: JobDirectory, how: str) -> None:
        """Record that an attempt is closed, and prevent any further effect of it.

        A node that was given up may still run the job, and a job that Slurm has requeued may begin again. Both check
        for `cancelled`.
        """
        try:
            if how == "failed":
                directory.write_cancelled()
            directory.forget_secrets()
            directory.write_ended(how, self.spec.instance.try_number)
            if self.spec.slurm.requeue:
                directory.write_cancelled()
            if secrets := self.secrets(directory):
                directory.mask_arguments(lambda text: masked_text(Secrets(secrets).mask(text)))
        except OSError as error:  # the next try will find that it has ended
            self._notify(WarningLine(f"Cannot record the end of this attempt in its job directory: {error}"))

    def release(self) -> None:
        """Stop monitoring the job, and leave it to the next try; also from a signal handler."""
        self._is_released = True
        self._news.put(None)

    def cancel(self, *, timeout: float = TIMEOUT, is_cleared: bool = False) -> None:
        """Cancel the job, or its submission; also from a signal handler.

        :param timeout: seconds that this may take.
        :param is_cleared: whether a user has cleared the task, so that a recorded success does not count either.
        """
        self._is_cancelled = True
        if self._job is not None:
            cancel_job(self._job, self._notify, timeout=timeout, is_cleared=is_cleared)
        elif self._current is not None:
            abort_submission(self._current, self._notify, is_cleared=is_cleared)

    def stop(self, *, at_once: bool = False) -> None:
        """Have the job cancelled by the thread that submits or monitors it; also from a signal handler.

        :param at_once: do not wait for its end.
        """
        self._is_stopped = True
        self._is_let_go = self._is_let_go or at_once
        if not isinstance(self._job, Job):
            self.cancel()
        self._news.put(None)

    def abandon_previous(self) -> None:
        """Abandon the previous try's job, so that it ends and no try reattaches to it."""
        if (attempt := self._attempts.latest()) is not None:
            self._previous(attempt).abandon()

    def cancel_latest(self, *, timeout: float = TIMEOUT) -> None:
        """Cancel the latest attempt if it is not closed; where its job is not known, the job ends itself.

        :param timeout: seconds that this may take.
        """
        attempt = self._attempts.latest()
        if attempt is None:
            return
        cancel_attempt(attempt)
        if attempt.directory.read_job() and (job := self.latest_job()):
            cancel_job(job, self._notify, timeout=timeout)

    def _end_if_stopped(self, monitor: JobMonitor) -> None:
        if self._is_stopped and not self._is_cancelled:
            self._is_cancelled = True
            monitor.cancel()
        if self._is_let_go:
            raise SlurmCancelled(f"{self._job} was cancelled without waiting for its end", job_id=_id_of(self._job))

    def _check(self) -> None:
        """Raise if this try is no longer valid."""
        if self._is_cancelled:
            raise SlurmCancelled("cancelled before it was submitted")
        self._check_released()

    def _check_released(self) -> None:
        """Raise if this try is no longer the one that monitors the job."""
        if self._is_released:
            raise SlurmJobReleased("Airflow has released this try; the job is left to the next try")
        if self._supervisor is not None and os.getppid() != self._supervisor:
            raise SlurmJobReleased("the process that supervises this try has ended; the job is left to the next try")

    # -- Previous try --------------------------------------------------------------------------------------------------

    def _reattach(self) -> Job | PendingJob | None:
        attempt = self._attempts.latest()
        if attempt is None:
            return self._collected_before()
        self._current = attempt.directory
        previous, job = self._previous(attempt), None
        if previous.is_reusable:
            begun = self._submission(attempt).reattach()
            if isinstance(begun, PendingJob):
                return begun
            if (job := begun) is not None and not previous.has_failed(job):
                self.has_reattached = True
                path = job.directory.path
                self._notify(f"Reattaching to {job} submitted by a previous try; job directory: {path}")
                return job
            if job is not None and self.spec.slurm.retry_with and (ended := self.follow(job)).error:
                self._record_failure(job.directory, ended.as_error(), ended.node)
        previous.abandon(job)
        return None

    def _collected_before(self) -> Job | None:
        """Return the job whose success an earlier try has collected, if Airflow may have lost its result."""
        attempt = self._attempts.collected() if self.spec.slurm.durable else None
        begun = None if attempt is None else self._submission(attempt).look_up()
        if not isinstance(begun, Job) or not begun.directory.read_success():
            return None
        self.has_reattached = True
        self._notify(
            f"Collecting {begun} again: the try that collected its success ended before Airflow stored the result; "
            f"job directory: {begun.directory.path}"
        )
        return begun

    def _previous(self, attempt: Attempt) -> PreviousAttempt:
        submission = partial(self._submission, attempt, is_left=True)
        products = self._products(attempt.directory)
        return PreviousAttempt(self.spec, attempt, submission, products, self._notify, self._check)

    # -- New attempt ---------------------------------------------------------------------------------------------------

    def _submit(self) -> Job | PendingJob:
        cluster = get_backend(self.spec.slurm.cluster or "auto", self._notify, self._clusters)
        checked_run_dir(self._run_dir, kind=cluster.kind)
        spec, request = self.spec, None
        if spec.slurm.retry_with and cluster.kind == "slurm":
            request = self._retries.next(spec)
            spec = spec._replace(slurm=spec.slurm._replace(slurm=request.applied_to(spec.slurm.slurm)))
        while True:
            attempt = self._attempts.begin()
            self._current = attempt.directory
            submission = Submission(
                cluster,
                attempt,
                self._notify,
                self._check,
                self.spec.slurm.max_pending_time,
                controller_timeout=self.spec.controller_timeout,
            )
            try:
                products = self._products_of[attempt.directory.path] = JobProducts(self.task_run, attempt.directory)
                if self._saves_task:
                    save_task(attempt.directory, self.spec.task)
                call = products.begin(attempt.name)
                with suppress(OSError):  # the record only helps
                    attempt.directory.write_usage(planned_usage(spec.instance, attempt.name, spec.slurm.slurm))
                array = cluster if spec.shares_array and isinstance(cluster, SlurmClient) else None
                with attempt.directory.writing():
                    if request is not None:
                        attempt.directory.write_request(request)
                    spec.script(attempt.name, call, in_array=array is not None).write(attempt.directory)
                if array is not None:
                    return ArrayRegistration(array, attempt).register(spec.member(attempt.directory.path))
                return submission.submit()
            except DuplicateJobName as duplicate:
                self._notify(WarningLine(f"Cancelling {duplicate.job}: its job directory was removed"))
                self._previous(attempt).abandon(duplicate.job)
            except (SlurmCancelled, SlurmJobReleased, UnreadableRecord):
                raise
            except KeyboardInterrupt:  # perhaps during an sbatch that takes effect all the same
                if self.spec.slurm.on_kill_action != "keep_job":
                    # A controller that does not answer must not delay the end of this process.
                    giving_up = threading.Thread(target=self._give_up, args=(cluster, attempt), daemon=True)
                    giving_up.start()
                    giving_up.join(TIMEOUT_BEFORE_KILL)
                raise
            except SewerError as error:
                self._record_failure(attempt.directory, error, None)
                self._give_up(cluster, attempt)
                self._products(attempt.directory).discard()
                raise

    def _products(self, directory: JobDirectory) -> JobProducts:
        """Return the products of an attempt, which this process or another one has begun."""
        if directory.path not in self._products_of:
            run = self.task_run
            if self._saves_task:
                run = TaskRunner(load_task(directory, self.spec.task), {}, dag_run=self.spec.instance[:2])
            self._products_of[directory.path] = JobProducts(run, directory)
        return self._products_of[directory.path]

    def _give_up(self, cluster: JobBackend, attempt: Attempt) -> None:
        """Prevent any further effect of an attempt that could not be submitted."""
        with suppress(SlurmUnavailable):
            cancel_attempt(attempt)
        cancel_submission(cluster, attempt.name, attempt.directory)
        with suppress(SlurmUnavailable):
            attempt.record_end("failed")

    def _submission(self, attempt: Attempt, *, is_left: bool = False) -> Submission | ArrayRegistration:
        """Return the submission of an earlier attempt; one whose record is damaged gets this try's backend."""
        cluster = (
            self._clusters(attempt.cluster)
            if attempt.cluster
            else get_backend(self.spec.slurm.cluster or "auto", self._notify, self._clusters)
        )
        if attempt.in_array and isinstance(cluster, SlurmClient):
            return ArrayRegistration(cluster, attempt)
        timeout = self.spec.controller_timeout
        return Submission(cluster, attempt, self._notify, self._check, is_left=is_left, controller_timeout=timeout)


def _next(news: SimpleQueue[_News]) -> _News | None:
    """Wait a moment for news."""
    try:
        return news.get(timeout=_SLICE)
    except Empty:
        return None


def _id_of(begun: Job | PendingJob | None) -> str | None:
    return begun.ref.id if isinstance(begun, Job) else None
