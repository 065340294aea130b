"""The attempt that an earlier try has left: its job is taken up if it still counts; else nothing of it is to run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_sewer.slurm.backend import SlurmUnreachable
from airflow_provider_sewer.slurm.job import cancel, has_ended
from airflow_provider_sewer.slurm.polling import Backoff
from airflow_provider_sewer.slurm.states import ENDED, REQUEUEABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.arrays.pending_job import ArrayRegistration
    from airflow_provider_sewer.slurm.attempts import Attempt
    from airflow_provider_sewer.slurm.job import Job
    from airflow_provider_sewer.slurm.job_products import JobProducts
    from airflow_provider_sewer.slurm.job_spec import JobSpec
    from airflow_provider_sewer.slurm.submission import Submission

#: Seconds after which a job that was cancelled is cancelled again; that grows. So many may one cancelling take.
_CANCEL_AGAIN, _CANCEL_TIMEOUT = 30.0, 15.0
#: Seconds in which a job of another machine ends by itself, once it is told to and besides its grace.
_LOCAL_ENDS_WITHIN = 30.0
#: Seconds between two looks at whether this process is to go on.
_SLICE = 0.2


class PreviousAttempt:
    """The latest attempt of a task instance, whose end nobody has noted.

    :param planned: what is to run now.
    :param attempt: the attempt.
    :param way: returns its way into the queue; called when it is needed.
    :param products: what its job makes.
    :param say: told what becomes of it, a line each.
    :param check: raises when this process is not to go on.
    """

    def __init__(
        self,
        planned: JobSpec,
        attempt: Attempt,
        way: Callable[[], Submission | ArrayRegistration],
        products: JobProducts,
        say: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._planned = planned
        self._attempt = attempt
        self._way = way
        self._products = products
        self._say = say
        self._check = check

    @property
    def is_reusable(self) -> bool:
        """Tell whether it is one to go on with.

        A mark that cancels the job does not outweigh a success that the job has recorded; a user's clear does.

        :raises UnreadableRecord: when it is cancelled, and may have succeeded.
        """
        directory = self._attempt.directory
        if not self._planned.slurm.durable or not self._planned.instance.continues(self._attempt):
            return False
        return not directory.is_cancelled or (not directory.is_cleared and directory.read_success())

    def has_failed(self, job: Job) -> bool:
        """Tell whether its job has ended without success; one that nobody can say anything of has not."""
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
        """See to it that it is over: nothing of it runs, and nothing will.

        :param job: its job, if that is known.
        """
        directory = self._attempt.directory
        if self._planned.slurm.on_kill_action != "keep_job" or directory.is_cancelled:
            self._attempt.cancel()  # first, so that a job which is still on its way does not begin
            job = job or self._way().look_up()
            if job is not None and not has_ended(job):
                self._end(job)
        self._products.discard()
        self._attempt.record_end("abandoned")

    def _end(self, job: Job) -> None:
        """Cancel a job and wait for its end, however long that takes: another one is not to run beside it."""
        self._say(f"{job} of an earlier attempt is cancelled first")
        began = time.monotonic()
        next_cancel, pause = began, _CANCEL_AGAIN
        looks = Backoff(self._planned.slurm.max_poll_interval or 0.0)
        while not has_ended(job) and not self._is_out_of_reach(job, began):
            if time.monotonic() >= next_cancel:
                cancel(job, self._say, timeout=_CANCEL_TIMEOUT)
                next_cancel, pause = time.monotonic() + pause, pause * 2
            self._pause(looks.next(has_news=False))

    def _pause(self, seconds: float) -> None:
        """Wait, in slices, so that a process which is not to go on ends soon."""
        until = time.monotonic() + seconds
        self._check()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))
            self._check()

    def _is_out_of_reach(self, job: Job, began: float) -> bool:
        """Tell whether a job of another machine would have ended by itself by now, if that machine still runs."""
        return job.cluster.kind == "local" and time.monotonic() - began > self._planned.grace + _LOCAL_ENDS_WITHIN
