"""Slurm's commands: what they are asked, and what their answers mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import SlurmSubmitRefused, SlurmUnavailable
from airflow_provider_sewer.runners.slurm.cluster import (
    NOT_IN_ARRAY,
    NOT_KNOWN,
    Busy,
    JobRef,
    NoAnswer,
    NoCommand,
    Sighting,
)
from airflow_provider_sewer.runners.slurm.states import ENDED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory

#: Seconds that a command may take. A controller that is gone makes squeue give up after 18 s, sbatch after 9 s or more.
_PATIENCE = 60.0

#: Seconds until accounting is asked again for a job that it does not know, at first and at most.
_FIRST_ASK, _LONGEST_ASK = 2.0, 60.0
#: Seconds that accounting may take: nobody hears of other jobs meanwhile.
_ACCOUNTING_PATIENCE = 20.0

#: So many jobs are asked for by their ids.
_FEW = 50

# One job a line. Names can hold anything, and so come last; the other fields never hold a bar.
_QUEUE = "JobArrayID:30|,State:30|,exit_code:12|,restartcnt:8|,StartTime:30|,NodeList:200|,Reason:100|,Name:1024"
_ACCOUNTING = "JobID,State,ExitCode,NodeList,JobName"

# What sbatch says when the controller has answered with an error; what follows is from Slurm's own table of errors,
# of which these are not to be overcome by waiting.
_ANSWERED = re.compile(r"Batch job submission failed: (.*)")
_REFUSED = re.compile(
    r"Invalid (?!user id|job credential|authentication)|No partition specified|User's group not permitted|"
    r"Requested (nodes not in|node configuration is not|time limit is invalid|more tasks|operation not supported|GRES)|"
    r"More processors requested|Node count|CPU count|Task (count|distribution)|Job size|Job script|Job --batch|"
    r"Pathname of|(Job|Circular job) dependency|Memory (required|specification)|Job violates accounting/QOS policy|"
    r"Time limit specification|(Access denied to requested|Requested) reservation( is invalid|$)|Duplicate generic|"
    r"Burst Buffer (permission|request)|X11 forwarding|Multiple (KNL|partition)|Cannot request more threads"
)
# What sbatch exits with when it does not understand its own options.
_BAD_OPTION = 255
# What it prints of a line with options that it cannot read, and of options that do not go together.
_MALFORMED = re.compile(r"^fatal: .*: line \d+: (Unmatched|Unexpected) |\bFailed to validate job spec\b")
# What stands before the above when it is a limit on the number of jobs, and sbatch's word for a full queue.
_FULL = re.compile(r"\b(Assoc|QOS)(Max|Grp)Submit|job queue full|Unable to create job record")
# What sbatch says each time before it tries once more by itself, which goes on for longer than it is given.
_NO_ROOM = re.compile("temporarily unable to accept job")
# What scontrol says of the limits of arrays.
_LARGEST_ARRAY = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)
_MOST_ELEMENTS = re.compile(r"^SchedulerParameters\s*=.*\bmax_array_tasks=(\d+)", re.MULTILINE)
# What is said of a controller that is away or too busy, or of a network that is.
_AWAY = re.compile(
    r"Unable to (contact|resolve|establish control)|Unexpected message|Message (send|receive) failure|Communication|"
    r"Protocol authentication|"
    r"zero (bytes|length)|Received message length|Failed to send|timed out|standby mode|Connection (refused|reset)|"
    r"No route to host|Network is unreachable|Transport endpoint|Broken pipe|temporarily|rate limit|munge|credential|"
    r"authentication agent|configuration source|fetch config|Can't find an address|Requested nodes are busy|try again",
    re.IGNORECASE,
)
# What scancel says of a job that has ended.
_OVER = re.compile(r"Invalid job id|already complet")
_FORGOTTEN = "Invalid job id specified"
_NO_ACCOUNTING = "accounting storage is disabled"
# What sacct says before it prints nothing and exits with 0, where the name of slurmdbd's host cannot be resolved.
_NOT_ASKED = re.compile(r"\bDBD_\w+ failure|\bPersistInit\b")
# What is said of each try to resolve a name.
_ONE_TRY = re.compile(r"getaddrinfo\(\) failed: .*, attempt number -?\d+$")


class _Ask(NamedTuple):
    """What became of asking accounting for a job.

    :param again: when to ask it again.
    :param pause: seconds that lay before that.
    :param answer: what it said; ``None`` if it did not answer.
    """

    again: float = 0.0
    pause: float = 0.0
    answer: Sighting | None = None


class SlurmCluster:
    """The Slurm that the commands on PATH talk to, asked as the user of this process.

    :param patience: seconds that a command may take.
    """

    kind = "slurm"

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._env = _environment()
        self._has_accounting = True
        self._asks: dict[JobRef, _Ask] = {}
        self._missing: frozenset[JobRef] = frozenset()
        self._largest_array: tuple[int, int] | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Return what tells this cluster, and the user it is asked by, from others."""
        return (self.kind, self._env.get("SLURM_CONF", ""), str(os.geteuid()))

    @property
    def slowest_submission(self) -> float:
        """Return the seconds after which a submission that was begun by a process now dead has had its effect."""
        return self._patience + 10

    def submit(self, directory: RunDirectory, name: str) -> str:  # noqa: ARG002 - the script holds the name
        """Submit the script of a run directory and return the job's id.

        :raises Busy: when it is not known to have been taken, and may be submitted again later.
        :raises SlurmSubmitRefused: when it will never be taken.
        """
        try:
            done = self._run("sbatch", "--parsable", directory.script)
        except NoAnswer as error:
            is_full = bool(_NO_ROOM.search(str(error)))
            raise Busy(str(error), is_strange=isinstance(error, NoCommand), is_full=is_full) from None
        said = _words(done.stderr)
        if done.returncode == 0:
            if found := _ID.fullmatch(done.stdout.rstrip().rpartition("\n")[2]):
                return found.group(1)
            raise Busy(f"sbatch said {done.stdout.strip()!r}, which names no job; {said}".rstrip("; "), is_strange=True)
        if _is_final(done.returncode, said):
            raise SlurmSubmitRefused(f"Slurm refuses the job: {said}", run_directory=directory.path)
        is_full = bool(_FULL.search(said))
        is_strange = not is_full and not _AWAY.search(said)
        why = f"sbatch exited with {done.returncode}: {said or 'it said nothing'}"
        raise Busy(why, is_strange=is_strange, is_full=is_full)

    def find(self, name: str, *, since: float | None = None) -> str | None:
        """Return the id of the job of this name, or of the array.

        :param since: ask accounting as well, for jobs that were there this many seconds ago or later.
        :raises NoAnswer: when that cannot be known now.
        """
        named = [job_id for job_id, (seen, _) in self._queue("--name", name).items() if seen == name]
        if not named and since is not None and self._has_accounting:
            rows = self._accounting(*_own(), "--name", name, "-S", f"now-{since:.0f}seconds")
            named = [job_id for job_id, (seen, _) in rows.items() if seen == name]
        return max(map(_array_of, named), key=int) if named else None

    def look(self, jobs: Collection[JobRef]) -> dict[JobRef, Sighting]:
        """Return what is known of these jobs: one squeue for all, then accounting for those it has forgotten.

        :raises NoAnswer: when the controller does not answer.
        """
        asked = {job: _array_of(job.id) if job in self._missing else job.id for job in jobs}
        queue = self._queue_of(asked.values())
        seen = {job: _matching(job, queue) for job in jobs}
        forgotten = [job for job, sighting in seen.items() if sighting is NOT_KNOWN]
        known = {job: sighting for job, sighting in seen.items() if sighting is not NOT_KNOWN}
        self._missing = frozenset(forgotten)
        arrays = {_array_of(job.id) for job in forgotten if _is_element(job)}
        if len(jobs) <= _FEW and not arrays <= set(asked.values()):
            queue = self._queue_of(arrays)  # once: at the next look they are asked for at first
        answers = self._accounted(forgotten) if self._has_accounting else dict.fromkeys(forgotten, NOT_KNOWN)
        names = {(_array_of(job_id), name) for job_id, (name, _) in queue.items()} if arrays else set()
        for job, answer in answers.items():
            if answer is NOT_KNOWN and _is_element(job) and (_array_of(job.id), job.name) in names:
                answers[job] = NOT_IN_ARRAY
        return known | answers

    def cancel(self, job: JobRef, *, timeout: float) -> None:
        """Have a job ended, if it still has this name.

        :raises NoAnswer: when it is not known whether that was heard.
        """
        # With a filter, scancel would cancel all elements that wait as well (22.05).
        if _is_element(job):
            self.cancel_all([job], timeout=timeout)
        else:
            self._scancel("--name", job.name, job.id, timeout=timeout)

    def cancel_all(self, jobs: Collection[JobRef], *, timeout: float) -> None:
        """Have jobs ended, those that still have their names: one squeue and one scancel for all.

        :raises NoAnswer: when it is not known whether that was heard.
        """
        queue = self._queue_of([job.id for job in jobs], timeout=timeout / 2)
        known = [job.id for job in jobs if _matching(job, queue) is not NOT_KNOWN]
        if known:
            self._scancel(*_together(known), timeout=timeout / 2)

    def largest_array(self) -> tuple[int, int]:
        """Return below which number those of an array's elements have to be, and how many elements there can be.

        Both are 0 where there are no arrays, or no such limit.

        :raises NoAnswer: when the controller does not answer.
        """
        if self._largest_array is None:
            done = self._run("scontrol", "show", "config")
            if done.returncode:
                raise NoAnswer(f"scontrol exited with {done.returncode}: {_words(done.stderr)}")
            largest, most = (pattern.search(done.stdout) for pattern in (_LARGEST_ARRAY, _MOST_ELEMENTS))
            limits = (int(found.group(1)) if found else 0 for found in (largest, most))
            self._largest_array = next(limits), next(limits)
        return self._largest_array

    def _accounted(self, forgotten: Collection[JobRef]) -> dict[JobRef, Sighting]:
        """Return what accounting says of jobs that the controller has forgotten, without those it did not answer about.

        It is asked in one batch, and ever more seldom for a job that it does not know: that costs it far more than
        a look costs the controller.
        """
        now = time.monotonic()
        asks = self._asks = {job: self._asks.get(job, _Ask()) for job in forgotten}
        due = [job for job, ask in asks.items() if now >= ask.again]
        if due:
            try:
                accounts = self._accounting(*_these(job.id for job in due))
            except NoAnswer:
                accounts = None
            for job in due:
                pause = min(2 * asks[job].pause or _FIRST_ASK, _LONGEST_ASK)
                found = None if accounts is None else _matching(job, accounts)
                asks[job] = _Ask(now + pause, pause, NOT_KNOWN if found and found.state not in ENDED else found)
        return {job: ask.answer for job, ask in asks.items() if ask.answer is not None}

    def _queue(self, *options: str, timeout: float | None = None) -> dict[str, tuple[str, Sighting]]:
        own = ("-u", str(os.geteuid()))
        done = self._run("squeue", "-h", "-a", "-r", "-t", "all", *own, *options, "-O", _QUEUE, timeout=timeout)
        if done.returncode and _FORGOTTEN in done.stderr:  # what is said of a single one
            return {}
        if done.returncode:
            raise NoAnswer(f"squeue exited with {done.returncode}: {_words(done.stderr)}")
        return dict(_queue_row(line) for line in done.stdout.splitlines() if line.count("|") >= _QUEUE.count("|"))

    def _queue_of(self, ids: Collection[str], *, timeout: float | None = None) -> dict[str, tuple[str, Sighting]]:
        # A user may have thousands of other jobs; but many ids cost the controller more than all jobs do.
        return self._queue(*(_these(dict.fromkeys(ids)) if len(ids) <= _FEW else ()), timeout=timeout)

    def _scancel(self, *arguments: str, timeout: float) -> None:
        done = self._run("scancel", *arguments, timeout=timeout)
        said = done.stderr.splitlines()
        if done.returncode and not (said and all(_OVER.search(line) for line in said)):
            raise NoAnswer(f"scancel exited with {done.returncode}: {_words(done.stderr)}")

    def _accounting(self, *options: str) -> dict[str, tuple[str, Sighting]]:
        rows = self._sacct("-X", f"--format={_ACCOUNTING}", *options)
        return dict(_accounting_row(line) for line in rows if line.count("|") >= _ACCOUNTING.count(","))

    def _sacct(self, *options: str) -> list[str]:
        try:
            done = self._run("sacct", "-n", "-P", *options, timeout=min(self._patience, _ACCOUNTING_PATIENCE))
        except NoCommand:
            self._has_accounting = False
            return []
        if done.returncode and _NO_ACCOUNTING in done.stderr:
            self._has_accounting = False
            return []
        if done.returncode or (not done.stdout and _NOT_ASKED.search(done.stderr)):
            raise NoAnswer(f"sacct exited with {done.returncode}: {_words(done.stderr)}")
        return done.stdout.splitlines()

    def _run(self, *argv: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        seconds = timeout or self._patience
        # Should this process be killed, `timeout` still ends a command that hangs, so that what was begun
        # here has had its effect after a known time.
        command = ["timeout", "-k", "5", f"{seconds:g}", *argv]
        env = self._env if argv[0] == "sbatch" else {**self._env, "SLURM_TIME_FORMAT": "%s"}  # sbatch passes it on
        try:
            done = subprocess.run(
                command,
                env=env,
                cwd="/",  # that of this process may be gone
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise NoCommand("there is no command `timeout` here; it is part of coreutils") from None
        except OSError as error:  # too many processes or open files, or too little memory, just now
            raise NoAnswer(f"{argv[0]} cannot be started: {error.strerror}") from None
        said = done.stderr.decode("utf-8", "replace")
        if done.returncode in _TIMED_OUT:
            raise NoAnswer(f"{argv[0]} has not come back after {seconds:g} s; {_words(said)}".rstrip("; "))
        if done.returncode in _NOT_FOUND:
            raise NoCommand(f"there is no command {argv[0]} here that can be run")
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode("utf-8", "replace"), said)


_TIMED_OUT = frozenset({124, 137})
_NOT_FOUND = frozenset({126, 127})
_ID = re.compile(r"(\d+)(;\S+)?")


def _own() -> tuple[str, ...]:
    """Return what has sacct tell of this user's jobs only: as it does of itself, but for an administrator."""
    return () if os.geteuid() else ("-u", "0")


def _is_final(exit_code: int, said: str) -> bool:
    """Tell whether what sbatch has said means that the job will never be taken as it is."""
    answer = _ANSWERED.search(said)
    if answer is None:
        return exit_code == _BAD_OPTION or bool(_MALFORMED.search(said))
    return bool(_REFUSED.match(answer.group(1))) and not _FULL.search(said)


def require_slurm(otherwise: str = "run on this machine with cluster='local'") -> None:
    """See to it that there are Slurm's commands here.

    :param otherwise: what to do where there is no Slurm.
    :raises SlurmUnavailable: naming the missing ones.
    """
    missing = [name for name in ("sbatch", "squeue", "scancel") if not shutil.which(name)]
    if missing:
        raise SlurmUnavailable(
            f"there is no {', '.join(missing)} on this machine's PATH; install Slurm's client there, or {otherwise}"
        )


def _environment() -> dict[str, str]:
    """Return the environment of Slurm's commands: nothing in it steers them, or reaches a job, but SLURM_CONF."""
    kept = ("PATH", "HOME", "USER", "LOGNAME", "TZ", "SLURM_CONF", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    return {**env, "LC_ALL": "C.UTF-8"}


def _these(ids: Iterable[str]) -> tuple[str, str]:
    return ("-j", ",".join(ids))


def _together(ids: Iterable[str]) -> list[str]:
    """Return words that name all of these jobs: one for all elements of an array, which is one request."""
    arrays: dict[str, list[str]] = {}
    for job_id in ids:
        array, _, element = job_id.partition("_")
        arrays.setdefault(array, []).append(element)
    return [f"{array}_[{','.join(elements)}]" if all(elements) else array for array, elements in arrays.items()]


def _is_element(job: JobRef) -> bool:
    return "_" in job.id


def _array_of(job_id: str) -> str:
    """Return the id of the array of an element; that of a job that is none as it is."""
    return job_id.partition("_")[0]


def _matching(job: JobRef, rows: Mapping[str, tuple[str, Sighting]]) -> Sighting:
    name, sighting = rows.get(job.id, ("", NOT_KNOWN))
    return sighting if name == job.name else NOT_KNOWN


def _queue_row(line: str) -> tuple[str, tuple[str, Sighting]]:
    job_id, state, status, restarts, start, nodes, reason, name = line.split("|", 7)
    raw = int(status) if status.strip().isdigit() else 0
    sighting = Sighting(
        state=state.strip(),
        reason="" if reason.strip() == "None" else reason.strip(),
        node="" if nodes.strip() == "(null)" else nodes.strip(),
        exit_code=raw >> 8,
        signal=raw & 0x7F or None,
        restarts=int(restarts) if restarts.strip().isdigit() else 0,
        start=_number(start.strip()) or None,
    )
    return job_id.strip(), (name.rstrip(), sighting)


def _accounting_row(line: str) -> tuple[str, tuple[str, Sighting]]:
    job_id, state, exit_code, nodes, name = line.split("|", 4)
    code, _, number = exit_code.partition(":")
    sighting = Sighting(
        state=state.split(" ")[0],  # "CANCELLED by 1000"
        reason=state.partition(" ")[2],
        node="" if nodes == "None assigned" else nodes,
        exit_code=int(code) if code.isdigit() else None,
        signal=int(number) or None if number.isdigit() else None,
    )
    return job_id, (name, sighting)


def _words(text: str) -> str:
    """Return what a command has said on one line, without the prefix of each of its lines."""
    lines = [line for line in text.strip().splitlines() if line.strip() and not _ONE_TRY.search(line)]
    return "; ".join(re.sub(r"^\w+: (error: )?", "", line) for line in lines)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
