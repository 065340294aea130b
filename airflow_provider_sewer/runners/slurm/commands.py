"""Slurm's commands: what they are asked, and what their answers mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SlurmSubmitRefused, SlurmUnavailable
from airflow_provider_sewer.runners.slurm.cluster import NOT_KNOWN, Busy, JobRef, NoAnswer, Sighting
from airflow_provider_sewer.runners.slurm.states import ENDED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory

#: Seconds that a command may take. A controller that is gone makes squeue give up after 18 s, sbatch after 9 s or more.
_PATIENCE = 60.0

# One job a line. Names can hold anything, and so come last; the other fields never hold a bar.
_QUEUE = "JobID:30|,State:30|,exit_code:12|,restartcnt:8|,StartTime:30|,NodeList:200|,Reason:100|,Name:1024"
_ACCOUNTING = "JobIDRaw,State,ExitCode,NodeList,JobName"
_USAGE = "ElapsedRaw,TotalCPU,AllocCPUS,MaxRSS"

# What sbatch says when it was not heard, or perhaps was and had no answer.
_SILENT = re.compile(
    r"unable to contact|timed out|connection (refused|reset|timed out)|not responding|zero bytes|standby mode|"
    r"transport endpoint|temporarily un|unexpected message|communication|no route to host|unable to establish|"
    r"network is unreachable|rate limit|slurm_receive_msg|slurm_send|munge|authentication|failed to connect",
    re.IGNORECASE,
)
# What it says when there are too many jobs already.
_FULL = re.compile(r"Max\w*Submit|Grp\w*Submit|job ?count|too many (jobs|pending)|submit limit reached", re.IGNORECASE)
_REFUSED = re.compile(
    r"batch job submission failed|invalid|unrecognized option|fatal: |not permitted|error: .*(must|cannot|can't)",
    re.IGNORECASE,
)
_NO_ACCOUNTING = "accounting storage is disabled"


class SlurmCluster:
    """The Slurm that the commands on PATH talk to, asked as the user of this process.

    :param patience: seconds that a command may take.
    """

    kind = "slurm"

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._env = _environment()
        self._has_accounting = True

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
            raise Busy(str(error)) from None
        said = _words(done.stderr)
        if done.returncode == 0:
            found = re.match(r"\s*(\d+)", done.stdout)
            if not found:
                raise Busy(f"sbatch said {done.stdout.strip()!r}, which names no job; {said}")
            return found.group(1)
        if _FULL.search(said):
            raise Busy(said, is_full=True)
        if _SILENT.search(said) or not _REFUSED.search(said):
            raise Busy(f"sbatch exited with {done.returncode}: {said or 'it said nothing'}")
        raise SlurmSubmitRefused(f"Slurm refuses the job: {said}", run_directory=directory.path)

    def find(self, name: str, *, thoroughly: bool) -> str | None:
        """Return the id of the job of this name.

        :param thoroughly: ask accounting as well.
        :raises NoAnswer: when that cannot be known now.
        """
        named = [job_id for job_id, (seen, _) in self._queue("--name", name).items() if seen == name]
        if not named and thoroughly and self._has_accounting:
            named = [
                job_id
                for job_id, (seen, _) in self._accounting("--name", name, "-S", "now-30days").items()
                if seen == name
            ]
        return max(named, key=int) if named else None

    def look(self, jobs: Collection[JobRef]) -> dict[JobRef, Sighting]:
        """Return what is known of these jobs: one squeue for all, then accounting for those it has forgotten.

        :raises NoAnswer: when the controller does not answer.
        """
        queue = self._queue()
        seen = {job: _matching(job, queue) for job in jobs}
        forgotten = [job.id for job, sighting in seen.items() if sighting is NOT_KNOWN]
        if forgotten and self._has_accounting:
            try:
                accounts = self._accounting("-j", ",".join(forgotten))
            except NoAnswer:
                return {job: sighting for job, sighting in seen.items() if sighting is not NOT_KNOWN}
            for job in jobs:
                if seen[job] is NOT_KNOWN and (found := _matching(job, accounts)).state in ENDED:
                    seen[job] = found
        return seen

    def cancel(self, job: JobRef, *, timeout: float) -> None:
        """Have a job ended, if it still has this name.

        :raises NoAnswer: when it is not known whether that was heard.
        """
        done = self._run("scancel", "--name", job.name, job.id, timeout=timeout)
        if done.returncode:
            raise NoAnswer(f"scancel exited with {done.returncode}: {_words(done.stderr)}")

    def usage(self, job_id: str) -> dict[str, float]:
        """Return what accounting has measured of a job.

        ``elapsed`` and ``cpu`` in seconds, ``cpus``, ``max_rss`` in bytes.

        :raises NoAnswer: when accounting does not answer.
        """
        if not self._has_accounting:
            return {}
        rows = self._sacct("-j", job_id, f"--format={_USAGE}", "--noconvert")
        fields: dict[str, float] = {}
        for elapsed, cpu, cpus, rss in (row.split("|")[:4] for row in rows):
            measured = {
                "elapsed": _number(elapsed),
                "cpu": _seconds(cpu),
                "cpus": _number(cpus),
                "max_rss": _number(rss.rstrip("KMG")),
            }
            for name, value in measured.items():
                fields[name] = max(value, fields.get(name, 0.0))
        return {name: value for name, value in fields.items() if value}

    def _queue(self, *options: str) -> dict[str, tuple[str, Sighting]]:
        done = self._run("squeue", "-h", "-t", "all", "-u", str(os.geteuid()), *options, "-O", _QUEUE)
        if done.returncode:
            raise NoAnswer(f"squeue exited with {done.returncode}: {_words(done.stderr)}")
        return dict(_queue_row(line) for line in done.stdout.splitlines() if line.count("|") >= _QUEUE.count("|"))

    def _accounting(self, *options: str) -> dict[str, tuple[str, Sighting]]:
        rows = self._sacct("-X", f"--format={_ACCOUNTING}", *options)
        return dict(_accounting_row(line) for line in rows if line.count("|") >= _ACCOUNTING.count(","))

    def _sacct(self, *options: str) -> list[str]:
        done = self._run("sacct", "-n", "-P", *options)
        if done.returncode and _NO_ACCOUNTING in done.stderr:
            self._has_accounting = False
            return []
        if done.returncode:
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
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise NoAnswer("there is no command `timeout` here; it is part of coreutils") from None
        if done.returncode in _TIMED_OUT:
            raise NoAnswer(f"{argv[0]} has not come back after {seconds:g} s")
        if done.returncode == _NOT_FOUND:
            raise NoAnswer(f"there is no command {argv[0]} here")
        texts = (done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
        return subprocess.CompletedProcess(argv, done.returncode, *texts)


_TIMED_OUT = frozenset({124, 137})
_NOT_FOUND = 127


def require_slurm() -> None:
    """See to it that there are Slurm's commands here.

    :raises SlurmUnavailable: naming the missing ones.
    """
    missing = [name for name in ("sbatch", "squeue", "scancel") if not shutil.which(name)]
    if missing:
        raise SlurmUnavailable(
            f"there is no {', '.join(missing)} on this machine's PATH; install Slurm's client there, "
            "or run on this machine with cluster='local'"
        )


def _environment() -> dict[str, str]:
    """Return the environment of Slurm's commands: nothing in it steers them, or reaches a job, but SLURM_CONF."""
    kept = ("PATH", "HOME", "USER", "LOGNAME", "TZ", "SLURM_CONF", "LD_LIBRARY_PATH")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    return {**env, "LC_ALL": "C.UTF-8"}


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
    return "; ".join(re.sub(r"^\w+: (error: )?", "", line) for line in text.strip().splitlines() if line.strip())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _seconds(text: str) -> float:
    """Read a duration as sacct writes it: ``1-02:03:04``, ``02:03.456``."""
    days, _, rest = text.rpartition("-")
    total = 0.0
    for part in rest.split(":"):
        total = total * 60 + _number(part)
    return total + _number(days) * 86400
