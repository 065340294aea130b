"""Submit one attempt, and never twice.

What is about to be submitted is noted first, and the job's name is looked up before every submission
and after every one that went wrong. A submission that was begun by a process now dead is waited for.
Should Slurm still have two jobs of one attempt in the end, the job script lets only one of them run.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SlurmCancelled, SlurmPendingTooLong, SlurmUnavailable, UnreadableRecord
from airflow_provider_sewer.execution.log_lines import WarningLine
from airflow_provider_sewer.execution.thread_slots import Slots
from airflow_provider_sewer.slurm.accounting import AccountingQueue
from airflow_provider_sewer.slurm.backend import CommandNotFound, JobBackend, SlurmUnreachable, SubmissionRetryable
from airflow_provider_sewer.slurm.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.slurm.attempts import Attempt
    from airflow_provider_sewer.slurm.job_script import ArrayScript, JobScript

#: Seconds between two tries, at first and at most; the true pause is drawn from half to one and a half of it.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
#: Seconds in which a controller that has just come back may show a job that it took before it went.
_SHOWS_UP = 3.0
#: How often in a row a submission may fail for reasons that are not known to pass. That takes some four minutes.
_MOST_STRANGE = 9
#: Seconds by which clocks may differ.
_CLOCKS = 60.0
#: Seconds for which accounting is asked at most.
_LONGEST_AGE = 30 * 86400.0
_SLICE = 0.2
#: So many of this process's threads submit or look up a job at once: each takes a process, and some open files.
_SLOTS = Slots(8)


class DuplicateJobName(Exception):
    """There is a job of the name that a new attempt was to have: that of a run directory which has been removed.

    :param job: the job.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(str(job))
        self.job = job


class Submission:
    """The way of one attempt into the queue.

    :param cluster: where the job is to run.
    :param attempt: the attempt.
    :param say: told what is being waited for.
    :param check: raises when this process is not to go on.
    :param most_seconds: for how long the controller, or room for another job, is waited for.
    :param is_left: whether the attempt has been given up, and its job is only looked for to be cancelled.
    :param fewer: makes an array smaller for which there is no room, and tells whether that could be.
    """

    def __init__(
        self,
        cluster: JobBackend,
        attempt: Attempt,
        say: Callable[[str], None],
        check: Callable[[], None],
        most_seconds: float | None = None,
        *,
        is_left: bool = False,
        fewer: Callable[[], bool] | None = None,
    ) -> None:
        self._cluster = cluster
        self._attempt = attempt
        self._directory = attempt.directory
        self._name = attempt.name
        self._say = say
        self._said = ""
        self._check = check
        self._most_seconds = most_seconds
        self._is_left = is_left
        self._shrink = fewer
        self._began = time.time()
        self._pause = _FIRST_PAUSE
        self._strange = 0

    # -- A new attempt -------------------------------------------------------------------------------------------------

    def submit(self, script: JobScript | ArrayScript) -> Job:
        """Submit a new attempt and return its job.

        :raises SlurmSubmitRefused: when Slurm refuses it for good.
        :raises SlurmUnavailable: when it cannot be submitted from here.
        :raises SlurmPendingTooLong: when there are too many jobs, or there is no controller, for too long.
        :raises SlurmCancelled: when the attempt is cancelled meanwhile.
        :raises NameTaken: when an attempt whose run directory is gone has the name.
        """
        self._note_intent()
        try:
            script.write(self._directory)
        except OSError as error:
            raise self._unwritable(error) from None
        if (known := self._find(has_begun=False)) is not None:
            raise DuplicateJobName(self._job(known, time.time()))
        return self._until_taken()

    def _until_taken(self) -> Job:
        while True:
            try:
                with _SLOTS.taken(self._check_cancelled):
                    self._note_intent()
                    self._check_cancelled()
                    submitted = self._cluster.submit(self._directory, self._name)
                if submitted.warning:
                    self._say(WarningLine(f"Slurm took job {submitted.id}, and sbatch printed: {submitted.warning}"))
                return self._as_job(submitted.id)
            except SubmissionRetryable as busy:
                self._handle_retryable(busy)
                is_full = busy.is_full
            # A queue that was full has taken nothing, so no job can have ended already, and accounting may not answer.
            look = partial(self._find_for_certain, in_accounting=not is_full)
            if is_full and self._shrink and look() is None and self._shrink():
                continue
            self._wait()
            if (known := look()) is not None:
                return self._as_job(known)

    def _note_intent(self) -> None:
        """Note that a submission begins now, so that another process knows for how long to wait for it."""
        try:
            self._attempt.note_intent(self._cluster.kind, self._began, time.time())
        except OSError as error:
            raise self._unwritable(error) from None

    def _handle_retryable(self, busy: SubmissionRetryable) -> None:
        """Take a failed submission as it is, unless that has no end."""
        self._strange = self._strange + 1 if busy.is_unclassified else 0
        if self._strange > _MOST_STRANGE and self._find_for_certain() is None:
            raise SlurmUnavailable(
                f"{self._name} could not be submitted in {self._strange} tries; the last time {busy}",
                run_directory=self._directory.path,
            )
        self._report(f"Not submitted yet, trying again: {busy}")

    # -- An earlier one ------------------------------------------------------------------------------------------------

    def reattach(self) -> Job | None:
        """Return the job of an attempt that was begun by a process now dead; ``None`` if none came of it.

        :raises SlurmCancelled: when the attempt is cancelled meanwhile.
        """
        until = self._is_over_at()
        while True:
            self._check_cancelled()
            is_over = time.time() >= until
            job = self.look_up(for_certain=is_over)
            if job is not None or is_over:
                return job
            self._report(f"An earlier submission of {self._name} may still be under way; looking for it")
            self._wait(at_most=max(until - time.time(), 0.0) + _SLICE)

    def look_up(self, *, for_certain: bool = True) -> Job | None:
        """Return the job of an attempt that was begun by another process; ``None`` if there is none now.

        :param for_certain: look twice, so that what the controller took before it went can show up.
        """
        unreadable = None
        try:
            if (noted := self._directory.read_job()) is not None:
                return self._job(noted["id"], noted["submitted"])
        except UnreadableRecord as error:  # its claim and its name lead to the job, too
            unreadable = error
        known = self._find_for_certain() if for_certain else self._find()
        if unreadable is not None and (known is None or unreadable.version is not None):
            raise unreadable
        return None if known is None else self._as_job(known)

    def _is_over_at(self) -> float:
        """Return when a submission that was begun by a process now dead has had its effect."""
        noted = self._directory.read_attempt()
        begun = float(noted["begun"]) if noted else 0.0
        return min(begun, time.time()) + self._cluster.slowest_submission

    # -- Looking for the job -------------------------------------------------------------------------------------------

    def _find_for_certain(self, *, in_accounting: bool = True) -> str | None:
        known = self._find(in_accounting=in_accounting)
        if known is None:
            self._sleep(_SHOWS_UP)
            known = self._find(in_accounting=in_accounting)
        return known

    def _find(self, *, has_begun: bool = True, in_accounting: bool = True) -> str | None:
        """Return the id of the attempt's job, as soon as that can be known.

        :param has_begun: whether it can have begun, and so have left its mark or have come to its end.
        :param in_accounting: whether it can be in accounting only.
        """
        while True:
            if has_begun and (claimed := self._directory.read_claim()) is not None:
                return claimed
            try:
                with _SLOTS.taken(self._check_cancelled):
                    known = self._cluster.find(self._name, self._directory.path)
                if known is not None or not (has_begun and in_accounting):
                    return known
                return AccountingQueue.of(self._cluster).ask(self._find_in_accounting, self._check_cancelled)
            except CommandNotFound as error:
                raise SlurmUnavailable(
                    f"{self._name} cannot be looked for: {error}", run_directory=self._directory.path
                ) from None
            except SlurmUnreachable as error:
                self._report(f"{self._name} has to be looked for before it is submitted; trying again: {error}")
            self._wait()

    def _find_in_accounting(self) -> str | None:
        return self._cluster.find_in_accounting(self._name, self._directory.path, since=self._age())

    def _age(self) -> float:
        """Return for how many seconds there can have been a job of this attempt."""
        noted = self._directory.read_attempt()
        made = float(noted["made"]) if noted else 0.0
        return min(max(time.time() - made, 0.0) + _CLOCKS, _LONGEST_AGE)

    def _as_job(self, job_id: str) -> Job:
        job = self._job(job_id, time.time())
        try:
            self._directory.write_job(job.to_data())
        except OSError as error:  # it can be found by its name, too
            self._say(f"The job of {self._name} is {job_id}, which cannot be noted in its run directory: {error}")
        return job

    def _job(self, job_id: str, submitted: float) -> Job:
        return Job.of(job_id, self._name, self._directory, self._cluster, submitted)

    # -- Waiting -------------------------------------------------------------------------------------------------------

    def _wait(self, *, at_most: float = _LONGEST_PAUSE) -> None:
        if self._most_seconds is not None and time.time() - self._began > self._most_seconds:
            raise SlurmPendingTooLong(
                f"{self._name} could not be submitted within max_pending_time, {self._most_seconds:g} s; {self._said}",
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
        """See whether to go on: a signal handler of this process or another process may have cancelled the attempt."""
        self._check()
        if self._directory.is_cancelled and not self._is_left and not self._directory.has_success:
            raise SlurmCancelled(
                f"{self._name} was cancelled before it was submitted", run_directory=self._directory.path
            )

    def _report(self, text: str) -> None:
        """Say what is being waited for, once."""
        if text != self._said:
            self._said = text
            self._say(text)

    def _unwritable(self, error: OSError) -> SlurmUnavailable:
        path = self._directory.path
        return SlurmUnavailable(f"run_dir: cannot write into {path!r}: {error.strerror}", run_directory=path)
