"""Client of Slurm's commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from airflow_provider_sewer.core.errors import SlurmSubmissionRejected, SlurmUnavailable
from airflow_provider_sewer.slurm import parsing
from airflow_provider_sewer.slurm.accounting_queue import AccountingQueue
from airflow_provider_sewer.slurm.arrays.array_limits import ArrayLimits, read_array_limits
from airflow_provider_sewer.slurm.backend import (
    MISSING_ARRAY_TASK,
    UNKNOWN_JOB,
    CommandNotFound,
    JobRef,
    JobStatus,
    SlurmUnreachable,
    SubmissionRetryable,
    Submitted,
)
from airflow_provider_sewer.slurm.sbatch_errors import AnswerKind, is_full_queue, read_answer
from airflow_provider_sewer.slurm.states import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from airflow_provider_sewer.slurm.job_directory import JobDirectory
    from airflow_provider_sewer.slurm.parsing import AccountedUsage, Row

_Text = TypeVar("_Text")
_Value = TypeVar("_Value")

#: Seconds that a command may take. Without a controller squeue gives up after 18 s, sbatch after 9 s or more.
_PATIENCE = 60.0

#: Seconds until accounting is queried again for a job that it does not know, at first and at most.
_FIRST_QUERY, _LONGEST_QUERY_PAUSE = 2.0, 60.0
#: Seconds that accounting may take: the status of other jobs has to wait meanwhile.
_ACCOUNTING_PATIENCE = 20.0

#: Largest number of jobs that are queried by their ids.
_FEW = 50
#: Largest number of jobs that one scancel cancels: Linux limits the length of an argument to 128 KiB.
_MOST_CANCELLED = 1000

# scancel's messages about a job that has ended.
_OVER = re.compile(r"Invalid job id|already complet")
_FORGOTTEN = "Invalid job id specified"
_NO_ACCOUNTING = "accounting storage is disabled"
# sacct's messages before it prints nothing and exits with 0, where the name of slurmdbd's host cannot be resolved.
_NOT_ASKED = re.compile(r"\bDBD_\w+ failure|\bPersistInit\b")
# A message of all commands, for want of a file and of a DNS record of a server that has one.
_NO_CONFIGURATION = "DNS SRV lookup failed"
#: Seconds that the query of the configuration may take.
_CONFIGURATION_PATIENCE = 10.0
_TIMED_OUT = frozenset({124, 137})
_NOT_FOUND = frozenset({126, 127})


class _AccountingQuery(NamedTuple):
    """State of the accounting query for a job.

    :param again: time of the next query.
    :param pause: seconds before that.
    :param answer: the last answer; ``None`` if there was none.
    """

    again: float = 0.0
    pause: float = 0.0
    answer: JobStatus | None = None


class SlurmClient:
    """Client of the Slurm cluster that the commands on PATH talk to, as the user of this process.

    :param patience: seconds that a command may take.
    """

    kind = "slurm"

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._env = _environment()
        self._has_accounting = True
        self._queries: dict[JobRef, _AccountingQuery] = {}
        self._missing: frozenset[JobRef] = frozenset()
        self._array_limits: ArrayLimits | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Return the identity of this cluster and the user of its commands."""
        return (self.kind, self._env.get("SLURM_CONF", ""), str(os.geteuid()))

    @property
    def slowest_submission(self) -> float:
        """Return the seconds after which a submission that was begun by a process now dead has taken effect."""
        return self._patience + 10

    def submit(self, directory: JobDirectory, name: str) -> Submitted:  # noqa: ARG002 - the script holds the name
        """Submit the script of a job directory.

        :raises SubmissionRetryable: when it is not known to be accepted, and may be submitted again later.
        :raises SlurmSubmissionRejected: when Slurm rejects it permanently.
        """
        try:
            done = self._run("sbatch", "--parsable", directory.script)
        except SlurmUnreachable as error:
            is_full = is_full_queue(error.stderr)
            raise SubmissionRetryable(
                str(error), is_unclassified=isinstance(error, CommandNotFound), is_full=is_full
            ) from None
        answer = read_answer(done.returncode, done.stdout, done.stderr)
        if answer.job_id:
            return Submitted(answer.job_id, answer.words)
        if answer.kind is AnswerKind.REJECTED:
            raise SlurmSubmissionRejected(f"Slurm rejected the job: {answer.words}", run_directory=directory.path)
        reason = (
            f"sbatch printed {done.stdout.strip()!r}, which contains no job id; {answer.words}".rstrip("; ")
            if done.returncode == 0
            else f"sbatch exited with {done.returncode}: {answer.words or 'no message'}"
        )
        is_unclassified, is_full = answer.kind is AnswerKind.UNCLASSIFIED, answer.kind is AnswerKind.FULL
        raise SubmissionRetryable(reason, is_unclassified=is_unclassified, is_full=is_full)

    def find(self, name: str, directory: str) -> str | None:
        """Return the id of the job of an attempt, or of an array, by its script or its name at submission.

        :raises SlurmUnreachable: when it cannot be determined now.
        """
        ref = JobRef("", name, directory)
        queue = self._squeue("-o", parsing.FIND_FIELDS)
        return max((job_id for job_id, row in parsing.found_rows(queue) if row.is_of(ref)), key=int, default=None)

    def find_in_accounting(self, name: str, directory: str, *, since: float) -> str | None:
        """Return the id of the job of an attempt, or of an array, that the controller may have forgotten.

        Accounting knows jobs by name only; for a job that was renamed and has begun, the job directory holds the id.

        :param since: for jobs that existed this many seconds ago or later.
        :raises SlurmUnreachable: when it cannot be determined now.
        """
        if not self._has_accounting:
            return None
        ref = JobRef("", name, directory)
        rows = self._accounting(*_own(), "--name", name, "-S", f"now-{since:.0f}seconds")
        ids = [job_id.partition("_")[0] for job_id, row in rows.items() if row.is_of(ref)]
        return max(ids, key=int, default=None)

    def poll(self, jobs: Collection[JobRef]) -> dict[JobRef, JobStatus]:
        """Return the status of these jobs: one squeue for all, then accounting for those it has forgotten.

        :raises SlurmUnreachable: when the controller does not answer.
        """
        queried = {job: job.array_id if job in self._missing else job.id for job in jobs}
        queue = self._queue_of(queried.values())
        seen = {job: parsing.matching(job, queue) for job in jobs}
        forgotten = [job for job, status in seen.items() if status is UNKNOWN_JOB]
        known = {job: status for job, status in seen.items() if status is not UNKNOWN_JOB}
        self._missing = frozenset(forgotten)
        arrays = {job.array_id for job in forgotten if job.is_element}
        if len(jobs) <= _FEW and not arrays <= set(queried.values()):
            queue = self._queue_of(arrays)  # once: the next poll queries them at first
        answers = self._accounted(forgotten) if self._has_accounting else dict.fromkeys(forgotten, UNKNOWN_JOB)
        others = _rows_by_array(queue) if arrays else {}
        for job, answer in answers.items():
            if answer is UNKNOWN_JOB and job.is_element and any(row.is_of(job) for row in others.get(job.array_id, ())):
                answers[job] = MISSING_ARRAY_TASK
        return known | answers

    def cancel(self, jobs: Collection[JobRef], *, timeout: float) -> dict[JobRef, str]:
        """Cancel jobs whose ids still are theirs, and return why the controller may not know about some of them.

        Several jobs take one squeue, and one scancel for each thousand.
        """
        until = time.monotonic() + timeout
        try:
            if len(jobs) == 1:
                self._cancel_one(next(iter(jobs)), until)
            elif jobs:
                self._cancel_together(jobs, until)
        except SlurmUnreachable as error:
            return dict.fromkeys(jobs, str(error))
        return {}

    def _cancel_one(self, job: JobRef, until: float) -> None:
        """Cancel a job by id and name: a controller that does not answer now applies that as soon as it can.

        By id alone if the job turns out to have another name by now.
        """
        if job.is_element:  # with a filter, scancel would cancel all elements that wait as well (22.05)
            self._cancel_together([job], until)
            return
        self._scancel("--name", job.name, job.id, timeout=_left(until))
        row = self._queue_of([job.id], timeout=_left(until)).get(job.id)
        if row is not None and row.name != job.name and row.is_of(job):
            self._scancel(job.id, timeout=_left(until))

    def _cancel_together(self, jobs: Collection[JobRef], until: float) -> None:
        queue = self._queue_of([job.id for job in jobs], timeout=_left(until) / 2)
        known = [job.id for job in jobs if parsing.matching(job, queue) is not UNKNOWN_JOB]
        for first in range(0, len(known), _MOST_CANCELLED):
            self._scancel(*_together(known[first : first + _MOST_CANCELLED]), timeout=_left(until))

    def version(self) -> tuple[int, int] | None:
        """Return the version of Slurm's commands here, such as (25, 11); ``None`` if it cannot be determined."""
        try:
            return parsing.read_version(self._run("squeue", "--version").stdout)
        except SlurmUnreachable:
            return None

    def configuration_error(self) -> str:
        """Return why Slurm's commands find no configuration; empty if they find one, or its server is unreachable.

        :raises SlurmUnreachable: when this cannot be determined now.
        """
        # It reads the configuration, and queries no daemon.
        done = self._run("scontrol", "show", "hostnames", "localhost")
        return parsing.one_line(done.stderr) if done.returncode and _NO_CONFIGURATION in done.stderr else ""

    def array_limits(self) -> ArrayLimits:
        """Return the limits of the cluster's job arrays, which are queried once.

        :raises SlurmUnreachable: when the controller does not answer.
        """
        if self._array_limits is None:
            done = self._run("scontrol", "show", "config")
            if done.returncode:
                raise SlurmUnreachable(f"scontrol exited with {done.returncode}: {parsing.one_line(done.stderr)}")
            self._array_limits = _read(read_array_limits, done.stdout)
        return self._array_limits

    def _accounted(self, forgotten: Collection[JobRef]) -> dict[JobRef, JobStatus]:
        """Return accounting's status of jobs that the controller has forgotten, without those it did not answer about.

        It is queried in one batch, and ever more rarely for a job that it does not know: such a query costs it far more
        than a poll costs the controller.
        """
        now = time.monotonic()
        queries = self._queries = {job: self._queries.get(job, _AccountingQuery()) for job in forgotten}
        due = [job for job, query in queries.items() if now >= query.again]
        if due:
            try:
                accounts = AccountingQueue.of(self).ask(lambda: self._accounting(*_these(job.id for job in due)))
            except SlurmUnreachable:
                accounts = None
            for job in due:
                pause = min(2 * queries[job].pause or _FIRST_QUERY, _LONGEST_QUERY_PAUSE)
                found = None if accounts is None else parsing.matching(job, accounts)
                queries[job] = _AccountingQuery(
                    now + pause, pause, UNKNOWN_JOB if found and found.state not in ENDED else found
                )
        return {job: query.answer for job, query in queries.items() if query.answer is not None}

    def _queue_of(self, ids: Collection[str], *, timeout: float | None = None) -> dict[str, Row]:
        # A user may have thousands of other jobs; but many ids cost the controller more than all jobs do.
        which = _these(dict.fromkeys(ids)) if len(ids) <= _FEW else ()
        return _read(parsing.queue_rows, self._squeue("-r", *which, "-O", parsing.QUEUE_FIELDS, timeout=timeout))

    def _squeue(self, *options: str, timeout: float | None = None) -> str:
        own = ("-u", str(os.geteuid()))
        done = self._run("squeue", "-h", "-a", "-t", "all", *own, *options, timeout=timeout)
        if done.returncode and _FORGOTTEN in done.stderr:  # for a single job
            return ""
        if done.returncode:
            raise SlurmUnreachable(f"squeue exited with {done.returncode}: {parsing.one_line(done.stderr)}")
        return done.stdout

    def _scancel(self, *arguments: str, timeout: float) -> None:
        done = self._run("scancel", *arguments, timeout=timeout)
        messages = done.stderr.splitlines()
        if done.returncode and not (messages and all(_OVER.search(line) for line in messages)):
            raise SlurmUnreachable(f"scancel exited with {done.returncode}: {parsing.one_line(done.stderr)}")

    def _accounting(self, *options: str) -> dict[str, Row]:
        return _read(parsing.accounting_rows, self._sacct("-X", f"--format={parsing.ACCOUNTING_FIELDS}", *options))

    def accounted_usage(self, jobs: Collection[JobRef]) -> dict[JobRef, AccountedUsage]:
        """Return the usage that accounting has of jobs, with one query; empty if there is no accounting.

        :raises SlurmUnreachable: when accounting does not answer.
        """
        lines = self._sacct(f"--format={parsing.USAGE_FIELDS}", *_these(job.id for job in jobs)) if jobs else ()
        found = parsing.usage_rows(lines)
        return {job: found[job.id] for job in jobs if job.id in found and found[job.id].row.is_of(job)}

    def _sacct(self, *options: str) -> list[str]:
        try:
            done = self._run("sacct", "-n", "-P", *options, timeout=min(self._patience, _ACCOUNTING_PATIENCE))
        except CommandNotFound:
            self._has_accounting = False
            return []
        if done.returncode and _NO_ACCOUNTING in done.stderr:
            self._has_accounting = False
            return []
        if done.returncode or (not done.stdout and _NOT_ASKED.search(done.stderr)):
            raise SlurmUnreachable(f"sacct exited with {done.returncode}: {parsing.one_line(done.stderr)}")
        return done.stdout.splitlines()

    def _run(self, *argv: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        seconds = timeout or self._patience
        # If this process is killed, `timeout` still ends a command that hangs, so that a submission takes effect within
        # a known time.
        command = ["timeout", "-k", "5", f"{seconds:g}", *argv]
        env = self._env if argv[0] == "sbatch" else {**self._env, "SLURM_TIME_FORMAT": "%s"}  # sbatch would export it
        try:
            done = subprocess.run(
                command,
                env=env,
                cwd="/",  # this process's own may have been removed
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise CommandNotFound("command `timeout` not found; it is part of coreutils") from None
        except OSError as error:  # too many processes or open files, or too little memory, just now
            raise SlurmUnreachable(f"{argv[0]} cannot be started: {error.strerror}") from None
        stderr = done.stderr.decode("utf-8", "replace")
        if done.returncode in _TIMED_OUT:
            raise SlurmUnreachable(
                f"{argv[0]} timed out after {seconds:g} s; {parsing.one_line(stderr)}".rstrip("; "), stderr
            )
        if done.returncode in _NOT_FOUND:
            raise CommandNotFound(f"command {argv[0]} not found or not executable here")
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode("utf-8", "replace"), stderr)


def _own() -> tuple[str, ...]:
    """Return sacct's options for this user's jobs only: that is its default, except for an administrator."""
    return () if os.geteuid() else ("-u", "0")


def _read(parse: Callable[[_Text], _Value], text: _Text) -> _Value:
    """Parse the output of a command; invalid output counts as no answer."""
    try:
        return parse(text)
    except ValueError as error:
        raise SlurmUnreachable(str(error)) from None


def _rows_by_array(queue: Mapping[str, Row]) -> dict[str, set[Row]]:
    """Return the rows of each array, without the fields that differ between elements."""
    arrays: dict[str, set[Row]] = {}
    for job_id, row in queue.items():
        arrays.setdefault(job_id.partition("_")[0], set()).add(row._replace(status=UNKNOWN_JOB))
    return arrays


def require_slurm(otherwise: str = "run on this machine with cluster='local'") -> None:
    """Check that Slurm's commands are on this machine.

    :param otherwise: the alternative to Slurm.
    :raises SlurmUnavailable: with the missing ones.
    """
    missing = [name for name in ("sbatch", "squeue", "scancel") if not shutil.which(name)]
    if missing:
        raise SlurmUnavailable(
            f"{', '.join(missing)} not found on this machine's PATH; install Slurm's client there, or {otherwise}"
        )


def require_configuration() -> None:
    """Check that Slurm's commands have a configuration here; the controller need not answer.

    :raises SlurmUnavailable: when there is no ``slurm.conf``, and no server that has one.
    """
    advice = "correct SLURM_CONF, or leave out --on slurm to run on this machine"
    named = os.environ.get("SLURM_CONF")
    if named is not None and not os.path.exists(named):  # Slurm's commands look for it again, for a minute
        raise SlurmUnavailable(f"SLURM_CONF names {named or 'an empty path'}, which does not exist; {advice}")
    with suppress(SlurmUnreachable):  # then each submission tries again
        error = SlurmClient(patience=_CONFIGURATION_PATIENCE).configuration_error()
        if error:
            raise SlurmUnavailable(f"Slurm has no configuration on this machine: {error}; {advice}")


def _environment() -> dict[str, str]:
    """Return the environment of Slurm's commands: of its variables only SLURM_CONF affects them or reaches a job."""
    names = ("PATH", "HOME", "USER", "LOGNAME", "TZ", "SLURM_CONF", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in names if name in os.environ}
    return {**env, "LC_ALL": "C.UTF-8"}


def _these(ids: Iterable[str]) -> tuple[str, str]:
    return ("-j", ",".join(ids))


def _left(until: float) -> float:
    """Return the seconds until a time, at least one; rounded for messages."""
    return max(round(until - time.monotonic(), 1), 1.0)


def _together(ids: Iterable[str]) -> list[str]:
    """Return arguments for all of these jobs: one for all elements of an array, which is one request."""
    arrays: dict[str, list[str]] = {}
    for job_id in ids:
        array, _, element = job_id.partition("_")
        arrays.setdefault(array, []).append(element)
    return [f"{array}_[{','.join(elements)}]" if all(elements) else array for array, elements in arrays.items()]
