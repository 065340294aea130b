"""Attempt of a previous try: the try reattaches to its job if it is still valid, else abandons it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_sewer.slurm.backend import SlurmUnreachable
from airflow_provider_sewer.slurm.cancellation import RepeatedCancellation, cancel_attempt
from airflow_provider_sewer.slurm.job import has_ended
from airflow_provider_sewer.slurm.states import ENDED, REQUEUEABLE
from airflow_provider_sewer.slurm.status_poller import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.arrays.registration import ArrayRegistration
    from airflow_provider_sewer.slurm.attempts import Attempt
    from airflow_provider_sewer.slurm.job import Job
    from airflow_provider_sewer.slurm.job_products import JobProducts
    from airflow_provider_sewer.slurm.job_spec import JobSpec
    from airflow_provider_sewer.slurm.submission import Submission

#: Seconds in which a cancelled job of another machine ends by itself, in addition to its grace.
_LOCAL_ENDS_WITHIN = 30.0
#: Seconds between two checks whether this process must stop.
_SLICE = 0.2


class PreviousAttempt:
    """Latest attempt of a task instance, which is not closed.

    :param planned: the job to run now.
    :param attempt: the attempt.
    :param submission: returns its submission; called when it is needed.
    :param products: the products of its job.
    :param notify: takes log lines about it.
    :param check: raises when this process must stop.
    """

    def __init__(
        self,
        planned: JobSpec,
        attempt: Attempt,
        submission: Callable[[], Submission | ArrayRegistration],
        products: JobProducts,
        notify: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._planned = planned
        self._attempt = attempt
        self._submission = submission
        self._products = products
        self._notify = notify
        self._check = check

    @property
    def is_reusable(self) -> bool:
        """Return whether a try may reattach to it.

        A recorded success counts even if the job was cancelled, but not if a user has cleared the task.

        :raises UnreadableRecord: when it is cancelled, and may have succeeded.
        """
        directory = self._attempt.directory
        if not self._planned.slurm.durable or not self._planned.instance.continues(self._attempt):
            return False
        return not directory.is_cancelled or (not directory.is_cleared and directory.read_success())

    def has_failed(self, job: Job) -> bool:
        """Return whether its job has ended without success; a job of unknown status has not."""
        try:
            record = job.directory.read_module_end()
            if record is not None and (record.is_success or (record.is_torn_down and not record.asked)):
                return not record.is_success
            state = job.cluster.poll([job.ref]).get(job.ref)
        except (OSError, ValueError, SlurmUnreachable):
            return False
        if state is None or (self._planned.slurm.requeue and state.state in REQUEUEABLE):
            return False
        return state.state in ENDED and state.state != "COMPLETED"

    def abandon(self, job: Job | None = None) -> None:
        """Cancel it if it is not to run on, discard its products, and record that it is closed.

        :param job: its job, if known.
        """
        directory = self._attempt.directory
        if self._planned.slurm.on_kill_action != "keep_job" or directory.is_cancelled:
            cancel_attempt(self._attempt)  # first, so that a job whose submission is under way does not begin
            job = job or self._submission().look_up()
            if job is not None and not has_ended(job):
                self._end(job)
        self._products.discard()
        self._attempt.record_end("abandoned")

    def _end(self, job: Job) -> None:
        """Cancel a job and wait for its end without limit: another one must not run beside it."""
        self._notify(f"Cancelling {job} of an earlier attempt first")
        began = time.monotonic()
        cancellation = RepeatedCancellation(job, self._notify)
        backoff = Backoff(self._planned.slurm.max_poll_interval or 0.0)
        while not has_ended(job) and not self._is_out_of_reach(job, began):
            cancellation.cancel_if_due()
            self._pause(backoff.next(has_news=False))
            cancellation.log()

    def _pause(self, seconds: float) -> None:
        """Wait, in slices, so that a process that must stop ends soon."""
        until = time.monotonic() + seconds
        self._check()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))
            self._check()

    def _is_out_of_reach(self, job: Job, began: float) -> bool:
        """Return whether a job of another machine would have ended by itself by now, if that machine still runs."""
        return job.cluster.kind == "local" and time.monotonic() - began > self._planned.grace + _LOCAL_ENDS_WITHIN
