"""Request of the next attempt of a series of tries, from the records of the attempt before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SlurmError, SlurmRequestLimit, key_of
from airflow_provider_sewer.core.retry_requests import Failure, Request, tries_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.core.errors import SewerError
    from airflow_provider_sewer.slurm.attempts import Attempts
    from airflow_provider_sewer.slurm.job_directory import JobDirectory
    from airflow_provider_sewer.slurm.job_spec import JobSpec


class RetryRequests:
    """Requests of the attempts of one series of tries, by ``retry_with``.

    :param attempts: the attempts of the task instance.
    :param notify: takes log lines about changes.
    :param learns: whether the first attempt of this process can follow another one.
    """

    def __init__(self, attempts: Attempts, notify: Callable[[str], None], *, learns: bool) -> None:
        self._attempts = attempts
        self._notify = notify
        self._learns = learns
        self._extra_try = ""

    def next(self, spec: JobSpec) -> Request:
        """Return the request of the next attempt.

        :raises SlurmRequestLimit: when it would exceed ``max``.
        :raises UnreadableRecord: when a record of the attempt before cannot be read.
        """
        own, rules = Request.of(spec.slurm.slurm), spec.slurm.retry_with
        attempt = self._attempts.latest_of_series() if self._learns else None
        if attempt is None or attempt.cluster != "slurm":
            return own
        failure = attempt.directory.read_failure()
        request, changes = own.after(attempt.directory.read_request() or own, rules, failure)
        counts = ""
        if self._extra_try:
            number = request.extra_tries.get(self._extra_try, 0) + 1
            request = request._replace(extra_tries={**request.extra_tries, self._extra_try: number})
            counts = f" (extra try {number} of {tries_of(rules, self._extra_try)})"
        if failure is not None and (changes or counts):
            self._notify(f"Retrying with {', '.join(changes) or 'the same request'}: {failure.reason}{counts}")
        self._extra_try = ""
        return request

    def record_failure(self, directory: JobDirectory, error: SewerError, node: str | None) -> None:
        """Record how an attempt has failed.

        :raises OSError: when it cannot be written.
        """
        directory.write_failure(Failure(key_of(type(error)), node or ""))
        self._learns = True

    def has_extra_try(self, spec: JobSpec, directory: JobDirectory, error: SewerError) -> bool:
        """Return whether a failed attempt is followed by one that does not count as a retry of Airflow.

        :raises SlurmRequestLimit: when the next attempt would exceed ``max``, so that there must not be any.
        """
        rules, record = spec.slurm.retry_with, directory.read_attempt()
        if not rules or record is None or record["cluster"] != "slurm":
            return False
        own, key = Request.of(spec.slurm.slurm), key_of(type(error))
        before = directory.read_request() or own
        has_extra = before.extra_tries.get(key, 0) < tries_of(rules, key)
        if has_extra or not spec.is_last_try:
            try:
                own.after(before, rules, directory.read_failure())
            except SlurmRequestLimit as limit:
                raise _with_details(limit, error) from None
        self._extra_try = key if has_extra else ""
        return has_extra


def _with_details(limit: SlurmRequestLimit, error: SewerError) -> SlurmRequestLimit:
    """Return the error of a limit with the failure that has led to it."""
    names = ("job_id", "state", "exit_code", "node", "run_directory")
    details = {name: getattr(error, name) for name in names} if isinstance(error, SlurmError) else {}
    return SlurmRequestLimit(f"no retry: {limit.message}\n{error.message}", **details)
