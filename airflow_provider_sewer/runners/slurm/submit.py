"""Submit one attempt, and never twice.

What is about to be submitted is noted first, and the job's name is looked up before every submission
and after every one that went wrong. A submission that was begun by a process now dead is waited for.
Should Slurm still have two jobs of one attempt in the end, the job script lets only one of them run.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SlurmCancelled, SlurmPendingTooLong
from airflow_provider_sewer.runners.slurm.cluster import Busy, Cluster, JobRef, NoAnswer
from airflow_provider_sewer.runners.slurm.following import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.runners.slurm.attempts import Attempt
    from airflow_provider_sewer.runners.slurm.script import JobScript

#: Seconds between two tries, at first and at most; the true pause is drawn from half to one and a half of it.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
#: Seconds in which a controller that has just come back may show a job that it took before it went.
_SHOWS_UP = 3.0
_SLICE = 0.2


class Submission:
    """The way of one attempt into the queue.

    :param cluster: where the job is to run.
    :param attempt: the attempt.
    :param say: told what is being waited for.
    :param check: raises when this process is not to go on.
    :param most_seconds: for how long a limit on the number of jobs is waited for.
    """

    def __init__(
        self,
        cluster: Cluster,
        attempt: Attempt,
        say: Callable[[str], None],
        check: Callable[[], None],
        most_seconds: float | None = None,
    ) -> None:
        self._cluster = cluster
        self._attempt = attempt
        self._directory = attempt.directory
        self._name = attempt.name
        self._say = say
        self._check = check
        self._most_seconds = most_seconds
        self._began = time.time()
        self._pause = _FIRST_PAUSE

    def submit(self, script: JobScript) -> Job:
        """Submit a new attempt and return its job.

        :raises SlurmSubmitRefused: when Slurm refuses it for good.
        :raises SlurmPendingTooLong: when there are too many jobs for too long.
        :raises SlurmCancelled: when the attempt is cancelled meanwhile.
        """
        self._directory.write_attempt(
            {
                "name": self._name,
                "cluster": self._cluster.kind,
                "clears": self._attempt.clears,
                "run_clears": self._attempt.run_clears,
                "begun": self._began,
            }
        )
        script.write(self._directory)
        if (known := self._find(thoroughly=False)) is not None:
            return self._as_job(known)
        return self._until_taken()

    def take_up(self) -> Job | None:
        """Return the job of an attempt that was begun by a process now dead; ``None`` if none came of it.

        :raises SlurmCancelled: when the attempt is cancelled meanwhile.
        """
        noted = self._directory.read_job()
        if noted:
            return self._job(noted["id"], noted["submitted"])
        begun = self._directory.read_attempt().get("begun", 0.0)
        while True:
            is_over = time.time() > begun + self._cluster.slowest_submission
            known = self._find(thoroughly=True)
            if known is not None:
                return self._as_job(known)
            if is_over:
                return None
            self._say(f"An earlier submission of {self._name} may still be under way; looking for it")
            self._wait()

    def _until_taken(self) -> Job:
        while True:
            self._check()
            try:
                return self._as_job(self._cluster.submit(self._directory, self._name))
            except Busy as busy:
                self._say(f"Not submitted yet, trying again: {busy}")
                if busy.is_full:
                    self._check_patience(str(busy))
            self._wait()
            if (known := self._find_for_certain()) is not None:
                return self._as_job(known)

    def _find_for_certain(self) -> str | None:
        """Look twice with a pause between, so that what the controller took before it went can show up."""
        known = self._find(thoroughly=True)
        if known is None:
            self._sleep(_SHOWS_UP)
            known = self._find(thoroughly=True)
        return known

    def _find(self, *, thoroughly: bool) -> str | None:
        while True:
            if (claimed := self._directory.read_claim()) is not None:
                return claimed
            try:
                return self._cluster.find(self._name, thoroughly=thoroughly)
            except NoAnswer as error:
                self._say(f"Before {self._name} is submitted it has to be looked for; trying again: {error}")
            self._wait()

    def _as_job(self, job_id: str) -> Job:
        submitted = time.time()
        self._directory.write_job({"id": job_id, "cluster": self._cluster.kind, "submitted": submitted})
        return self._job(job_id, submitted)

    def _job(self, job_id: str, submitted: float) -> Job:
        return Job(JobRef(job_id, self._name, self._directory.path), self._directory, self._cluster, submitted)

    def _check_patience(self, why: str) -> None:
        if self._most_seconds is not None and time.time() - self._began > self._most_seconds:
            raise SlurmPendingTooLong(
                f"{self._name} could not be submitted within max_pending_time, {self._most_seconds:g} s: {why}",
                run_directory=self._directory.path,
            )

    def _wait(self) -> None:
        self._sleep(self._pause * random.uniform(0.5, 1.5))  # noqa: S311 - to spread the load
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _sleep(self, seconds: float) -> None:
        """Sleep, unless the attempt is cancelled: by another process, or by a signal handler of this one."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            if self._directory.is_cancelled:
                raise SlurmCancelled(
                    f"{self._name} was cancelled before it was submitted", run_directory=self._directory.path
                )
            time.sleep(min(left, _SLICE))
