"""Submission of one attempt, exactly once.

The intent to submit is recorded first. The job's name is looked up before every submission and after every failed one.
A submission that was begun by a process now dead is waited for. Should Slurm still have two jobs of one attempt in the
end, the job script lets only one of them run.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SlurmCancelled, SlurmPendingTooLong, SlurmUnavailable, UnreadableRecord
from airflow_provider_sewer.execution.job_messages import WarningLine, clock
from airflow_provider_sewer.execution.thread_slots import Slots
from airflow_provider_sewer.slurm.accounting_queue import AccountingQueue
from airflow_provider_sewer.slurm.backend import CommandNotFound, JobBackend, SlurmUnreachable, SubmissionRetryable
from airflow_provider_sewer.slurm.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.attempts import Attempt

#: Seconds between two tries, at first and at most; each pause is drawn from half to one and a half of it.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
#: Default of the seconds that a submission waits for a controller that does not answer.
CONTROLLER_TIMEOUT = 3600.0
#: Seconds in which a controller that has just restarted may show a job that it accepted before.
_SHOWS_UP = 3.0
#: Limit on consecutive failures of a submission for unclassified reasons. That takes some four minutes.
_MOST_UNCLASSIFIED = 9
#: Seconds by which clocks may differ.
_CLOCKS = 60.0
#: Limit on the age of jobs that accounting is queried for, in seconds.
_LONGEST_AGE = 30 * 86400.0
_SLICE = 0.2
#: Threads of this process that submit or look up a job at once: each takes a process, and some open files.
_SLOTS = Slots(8)


class DuplicateJobName(Exception):
    """A job has the name of a new attempt: that of an attempt whose job directory was removed.

    :param job: the job.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(str(job))
        self.job = job


class Submission:
    """Submits an attempt exactly once.

    :param cluster: the backend of the job.
    :param attempt: the attempt.
    :param notify: takes log lines about the reasons for waiting.
    :param check: raises when this process must stop.
    :param most_seconds: limit on waiting for the controller, or for room for another job.
    :param is_left: whether the attempt is abandoned, and its job is only looked up to be cancelled.
    :param shrink: shrinks an array for which there is no room, and returns whether that was possible.
    :param controller_timeout: limit in seconds on waiting for a controller that does not answer, where ``most_seconds``
        is not given.
    """

    def __init__(
        self,
        cluster: JobBackend,
        attempt: Attempt,
        notify: Callable[[str], None],
        check: Callable[[], None],
        most_seconds: float | None = None,
        *,
        is_left: bool = False,
        shrink: Callable[[], bool] | None = None,
        controller_timeout: float | None = None,
    ) -> None:
        self._cluster = cluster
        self._attempt = attempt
        self._directory = attempt.directory
        self._name = attempt.name
        self._notify = notify
        self._reported = ""
        self._check = check
        self._most_seconds = most_seconds
        self._is_left = is_left
        self._shrink = shrink
        self._controller_timeout = controller_timeout
        self._began = time.time()
        self._unanswered_since: float | None = None
        self._pause = _FIRST_PAUSE
        self._unclassified = 0

    # -- A new attempt -------------------------------------------------------------------------------------------------

    def submit(self) -> Job:
        """Submit a new attempt, whose script is written, and return its job.

        :raises SlurmSubmissionRejected: when Slurm rejects it permanently.
        :raises SlurmUnavailable: when it cannot be submitted from here, or without an answer within the controller
            timeout.
        :raises SlurmPendingTooLong: when there are too many jobs, or there is no controller, for too long.
        :raises SlurmCancelled: when the attempt is cancelled meanwhile.
        :raises DuplicateJobName: when an attempt whose job directory is gone has the name.
        """
        self._record_intent()
        if (known := self._find(has_begun=False)) is not None:
            raise DuplicateJobName(Job.of(known, self._name, self._directory, self._cluster, time.time()))
        return self._until_taken()

    def _until_taken(self) -> Job:
        while True:
            try:
                with _SLOTS.taken(self._check_cancelled):
                    self._record_intent()
                    self._check_cancelled()
                    submitted = self._cluster.submit(self._directory, self._name)
                if submitted.warning:
                    self._notify(
                        WarningLine(f"Slurm accepted job {submitted.id}, and sbatch printed: {submitted.warning}")
                    )
                return self._as_job(submitted.id)
            except SubmissionRetryable as busy:
                self._handle_retryable(busy)
                is_full = busy.is_full
            # A queue that was full has accepted nothing: no job can have ended already, and accounting may not answer.
            find_job = partial(self._find_for_certain, in_accounting=not is_full)
            if is_full and self._shrink and find_job() is None and self._shrink():
                continue
            self._wait()
            if (known := find_job()) is not None:
                return self._as_job(known)

    def _record_intent(self) -> None:
        """Record that a submission begins now, so that another process knows for how long to wait for it."""
        with self._directory.writing():
            self._attempt.record_intent(self._cluster.kind, self._began, time.time())

    def _handle_retryable(self, busy: SubmissionRetryable) -> None:
        """Accept a failed submission, unless it keeps failing for unclassified reasons."""
        self._unclassified = self._unclassified + 1 if busy.is_unclassified else 0
        if self._unclassified > _MOST_UNCLASSIFIED and self._find_for_certain() is None:
            raise SlurmUnavailable(
                f"{self._name} could not be submitted in {self._unclassified} tries; last error: {busy}",
                run_directory=self._directory.path,
            )
        self._record_answer(has_answered=busy.is_full)
        self._report(WarningLine(f"Not submitted yet, trying again {self._until_text()}: {busy}"))

    # -- An earlier one ------------------------------------------------------------------------------------------------

    def reattach(self) -> Job | None:
        """Return the job of an attempt that was begun by a process now dead; ``None`` if there is none.

        :raises SlurmCancelled: when the attempt is cancelled meanwhile.
        """
        until = self._is_over_at()
        while True:
            self._check_cancelled()
            is_over = time.time() >= until
            job = self.look_up(for_certain=is_over)
            if job is not None or is_over:
                return job
            self._report(
                f"Looking for an earlier submission of {self._name}, which may still be under way, until {clock(until)}"
            )
            self._wait(at_most=max(until - time.time(), 0.0) + _SLICE)

    def look_up(self, *, for_certain: bool = True) -> Job | None:
        """Return the job of an attempt that was begun by another process; ``None`` if there is none now.

        :param for_certain: look twice, so that a job that the controller accepted before a restart can show up.
        """
        unreadable = None
        try:
            if (record := self._directory.read_job()) is not None:
                return Job.of(record["id"], self._name, self._directory, self._cluster, record["submitted"])
        except UnreadableRecord as error:  # its claim and its name identify the job, too
            unreadable = error
        known = self._find_for_certain() if for_certain else self._find()
        if unreadable is not None and (known is None or unreadable.version is not None):
            raise unreadable
        return None if known is None else self._as_job(known)

    def _is_over_at(self) -> float:
        """Return when a submission that was begun by a process now dead has taken effect."""
        record = self._directory.read_attempt()
        begun = float(record["begun"]) if record else 0.0
        return min(begun, time.time()) + self._cluster.slowest_submission

    # -- Looking for the job -------------------------------------------------------------------------------------------

    def _find_for_certain(self, *, in_accounting: bool = True) -> str | None:
        known = self._find(in_accounting=in_accounting)
        if known is None:
            self._sleep(_SHOWS_UP)
            known = self._find(in_accounting=in_accounting)
        return known

    def _find(self, *, has_begun: bool = True, in_accounting: bool = True) -> str | None:
        """Return the id of the attempt's job, as soon as it can be determined.

        :param has_begun: whether it can have begun, and so have a claim or have ended.
        :param in_accounting: whether it can be in accounting only.
        """
        while True:
            if has_begun and (claimed := self._directory.read_claim()) is not None:
                return claimed
            try:
                with _SLOTS.taken(self._check_cancelled):
                    known = self._cluster.find(self._name, self._directory.path)
                self._record_answer(has_answered=True)
                if known is not None or not (has_begun and in_accounting):
                    return known
                return AccountingQueue.of(self._cluster).ask(self._find_in_accounting, self._check_cancelled)
            except CommandNotFound as error:
                raise SlurmUnavailable(
                    f"cannot look for {self._name}: {error}", run_directory=self._directory.path
                ) from None
            except SlurmUnreachable as error:
                self._record_answer(has_answered=False)
                self._report(
                    WarningLine(
                        f"Cannot look for {self._name} before its submission; trying again {self._until_text()}: "
                        f"{error}"
                    )
                )
            self._wait()

    def _find_in_accounting(self) -> str | None:
        return self._cluster.find_in_accounting(self._name, self._directory.path, since=self._age())

    def _age(self) -> float:
        """Return the largest possible age of a job of this attempt, in seconds."""
        record = self._directory.read_attempt()
        created = float(record["created"]) if record else 0.0
        return min(max(time.time() - created, 0.0) + _CLOCKS, _LONGEST_AGE)

    def _as_job(self, job_id: str) -> Job:
        job = Job.of(job_id, self._name, self._directory, self._cluster, time.time())
        try:
            self._directory.write_job(job.to_dict())
        except OSError as error:  # it can be found by its name, too
            self._notify(WarningLine(f"Cannot record Slurm job {job_id} ({self._name}) in its job directory: {error}"))
        return job

    def _record_answer(self, *, has_answered: bool) -> None:
        """Record whether the controller answers, for the limit on waiting for it."""
        if has_answered:
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = time.time()

    @property
    def _answer_due(self) -> float | None:
        """Return when the controller must have answered; ``None`` if it answers, or there is no limit."""
        if self._most_seconds is not None or self._controller_timeout is None or self._unanswered_since is None:
            return None
        return self._unanswered_since + self._controller_timeout

    def _until_text(self) -> str:
        if self._most_seconds is not None:
            return f"until {clock(self._began + self._most_seconds)} (max_pending_time)"
        if self._answer_due is not None:
            return f"until {clock(self._answer_due)} (set max_pending_time to change that)"
        return "without a limit (set max_pending_time to have one)"

    # -- Waiting -------------------------------------------------------------------------------------------------------

    def _wait(self, *, at_most: float = _LONGEST_PAUSE) -> None:
        if self._answer_due is not None and time.time() > self._answer_due:
            raise SlurmUnavailable(
                f"{self._name} could not be submitted: no answer from Slurm for {self._controller_timeout:g} s; "
                f"{self._reported}",
                run_directory=self._directory.path,
            )
        if self._most_seconds is not None and time.time() - self._began > self._most_seconds:
            raise SlurmPendingTooLong(
                f"{self._name} could not be submitted within max_pending_time, {self._most_seconds:g} s; "
                f"{self._reported}",
                run_directory=self._directory.path,
            )
        self._sleep(min(self._pause * random.uniform(0.5, 1.5), at_most))  # noqa: S311 - to spread the load
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check_cancelled()
            time.sleep(min(left, _SLICE))

    def _check_cancelled(self) -> None:
        """Raise if a signal handler of this process or another process has cancelled the attempt."""
        self._check()
        if self._directory.is_cancelled and not self._is_left and not self._directory.has_success:
            raise SlurmCancelled(
                f"{self._name} was cancelled before it was submitted", run_directory=self._directory.path
            )

    def _report(self, text: str) -> None:
        """Log the reason for waiting, once."""
        if text != self._reported:
            self._reported = text
            self._notify(text)


def submitted_message(job: Job) -> str:
    """Return the log line about a job that was submitted."""
    return f"Submitted {job}; job directory: {job.directory.path}"
