"""Client of a cluster's Slurm: commands, jobs, and states of both jobs and nodes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.slurm_cluster.fault_injection import SlurmTrouble
from tests.slurm_cluster.packages import LIBRARIES, path_with_sbin, slurm_version
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")

AT_WORK = {"idle", "mix", "alloc", "comp"}

_PAUSE = 0.03
_TAIL = 15
# Of Slurm's slurm_protocol_defs.h and slurm.h.
_SIG_OOM = 253
_NO_VAL = 0xFFFFFFFE
_SLURM_VARIABLES = ("SLURM", "SBATCH_", "SQUEUE_", "SACCT_", "SALLOC_", "SCANCEL_", "SINFO_", "SCONTROL_")
_JOB_LINE = re.compile(
    r"JobId=(?P<id>\d+) .*?\bName=(?P<name>.*) JobState=(?P<state>\S+) Partition=.* ExitCode=(?P<exit_code>\S+)"
)
_QUEUE_FIELDS = "JobID:20|,State:30|,exit_code:12|,restartcnt:8|,Name:1024"


@dataclass(frozen=True)
class Job:
    """Latest status of a job.

    :param exit_code: exit code and signal as Slurm writes them, such as ``3:0``.
    :param restarts: how often it was put back into the queue.
    """

    id: str
    name: str
    state: str
    exit_code: str
    restarts: int


class SlurmClient:
    """User of a running cluster.

    :param folder: for the output of jobs and the wrappers of commands; the daemons log there.
    """

    #: Where the configuration lies; it is made when the cluster is started.
    _run_folder: Path

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._logs = self.folder / "log"

    # Commands

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that let a process use this cluster; wrappers come first on PATH."""
        return {"SLURM_CONF": str(self.conf), "PATH": os.pathsep.join([str(self.wrapper_folder), self._path])}

    @property
    def conf(self) -> Path:
        """Return the path of slurm.conf."""
        return self._run_folder / "etc" / "slurm.conf"

    @property
    def wrapper_folder(self) -> Path:
        """Return the folder whose commands come before Slurm's own."""
        return self.folder / "in-front"

    def put_in_front(self, name: str, script: str = "") -> None:
        """Let a shell script run before each call of a command, and count the calls.

        The script may ``exit``, so that the real command is not run; ``$count`` is the number of this call.
        """
        real = shutil.which(name, path=self._path)
        if real is None:
            raise SlurmTrouble(f"there is no {name} to put anything in front of")
        calls = self.wrapper_folder / f".{name}.calls"
        wrapper = self.wrapper_folder / name
        lines = [
            "#!/bin/sh",
            # One byte, appended: no two calls that come at once get lost.
            f"printf . >> {shlex.quote(str(calls))}",
            f"count=$(wc -c < {shlex.quote(str(calls))})",
            script,
            f'exec {shlex.quote(real)} "$@"',
        ]
        calls.write_bytes(b"")
        fresh = wrapper.with_name(f".{name}.new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.chmod(0o755)
        # In one go, for a process that calls it right now.
        fresh.rename(wrapper)

    def take_away(self, name: str | None = None) -> None:
        """Remove the wrapper of one command, or of all."""
        for wrapper in self.wrapper_folder.glob(name or "[!.]*"):
            wrapper.unlink()

    def counted(self, name: str) -> int:
        """Return how often a command has been called since something was put in front of it."""
        return (self.wrapper_folder / f".{name}.calls").stat().st_size

    def command(self, *argv: str, check: bool = True, timeout: float = 2 * PATIENCE) -> str:
        """Run a command against this cluster, past all that is put in front, and return its stripped output."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(_SLURM_VARIABLES)}
        env |= {"SLURM_CONF": str(self.conf), "PATH": self._path}
        done = subprocess.run(
            argv,
            env=env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode:
            raise SlurmTrouble(
                f"{shlex.join(argv)} exited with {done.returncode}: {done.stderr.strip()}\n{self._tails()}"
            )
        return done.stdout.strip()

    # Jobs

    def submit(self, script: str, *options: str) -> str:
        """Submit a line of shell as a job, and return its id; ``output`` returns its output."""
        where = self.folder / "jobs"
        where.mkdir(exist_ok=True)
        return self.command("sbatch", "--parsable", f"--output={where}/%j.out", *options, f"--wrap={script}")

    def output(self, job_id: str | int) -> str:
        """Return the output of a job submitted here so far; nothing before its start."""
        with suppress(FileNotFoundError):
            return (self.folder / "jobs" / f"{job_id}.out").read_text()
        return ""

    def jobs(self, name_contains: str = "") -> list[Job]:
        """Return all jobs that this cluster has seen since its start, also those that squeue has forgotten."""
        # First the queue: a job that is no longer there has been written down before.
        queued = self._queued()
        jobs: dict[tuple[str, str], Job] = self._written_down() | queued
        return [job for job in sorted(jobs.values(), key=lambda job: int(job.id)) if name_contains in job.name]

    def job(self, job_id: str | int) -> Job:
        """Return one job as it is now."""
        for jobs in (self._queued(str(job_id)), self._written_down()):
            for job in jobs.values():
                if job.id == str(job_id):
                    return job
        raise SlurmTrouble(f"there never was a job {job_id}\n{self._tails()}")

    def state(self, job_id: str | int) -> str:
        """Return the state of a job, such as RUNNING."""
        return self.job(job_id).state

    def wait_for(self, job_id: str | int, *states: str, timeout: float = PATIENCE) -> Job:
        """Wait until a job is in one of some states, and return it.

        A job that is cancelled ends its script by itself, and Slurm may record that end, FAILED, instead of CANCELLED.
        """
        if "CANCELLED" in states:
            states = (*states, "FAILED")
        seen: list[str] = []

        def is_there() -> Job | None:
            job = self.job(job_id)
            if seen[-1:] != [job.state]:
                seen.append(job.state)
            return job if job.state in states else None

        return self.until(is_there, lambda: f"job {job_id} to be {' or '.join(states)}; it was {seen}", timeout)

    def until(self, condition: Callable[[], Value], goal: str | Callable[[], str], timeout: float = PATIENCE) -> Value:
        """Wait until a condition gives something true, and return that."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                text = goal if isinstance(goal, str) else goal()
                raise SlurmTrouble(f"timed out after {timeout:g} s waiting for {text}\n{self._tails()}")
            time.sleep(_PAUSE)
        return value

    # States that do not come about by themselves

    def node_down(self, node: str) -> None:
        """Declare a node dead: its jobs end as NODE_FAIL, or go back into the queue."""
        self.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=a test")

    def node_up(self, node: str) -> None:
        """Take a node back to work, and wait until it takes jobs."""

        def is_up() -> bool:
            state = self._node_states()[node]
            # A node that has not yet reported to a new controller cannot be resumed, and need not.
            if re.match("down|drain|drng|fail", state):
                self.command("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            return state in AT_WORK

        self.until(is_up, f"{node} back at work")

    def time_out(self, job_id: str | int) -> None:
        """Move the time limit of a running job to now; Slurm looks at the limits every 30 s."""
        self.command("scontrol", "update", f"JobId={job_id}", "EndTime=now+1")

    def out_of_memory(self, job_id: str | int) -> None:
        """Send the controller of a running job the node's message after a memory kill by the kernel.

        No command does that, but Slurm's own library: it is the end of a job with a signal that stands for it.
        """
        library = next(LIBRARIES.glob("*/slurm*/libslurmfull.so"))
        # From 25.11 on the job is a pointer to a slurm_step_id_t: a 64-bit SLUID, and three 32-bit numbers.
        step = f"struct.pack('=QIII', 0, {int(job_id)}, {_NO_VAL}, {_NO_VAL})"
        job = step if slurm_version() >= (25, 11) else str(int(job_id))
        code = (
            "import ctypes, struct, sys; "
            f"slurm = ctypes.CDLL({str(library)!r}, ctypes.RTLD_GLOBAL); slurm.slurm_init(None); "
            f"sys.exit(slurm.slurm_complete_job({job}, {_SIG_OOM}))"
        )
        # In a process of its own, because the library keeps the configuration that it has read first.
        self.command(sys.executable, "-I", "-c", code)

    def requeue(self, job_id: str | int) -> None:
        """Put a job back into the queue."""
        self.command("scontrol", "requeue", str(job_id))

    def hold(self, job_id: str | int) -> None:
        """Keep a waiting job from starting."""
        self.command("scontrol", "hold", str(job_id))

    def release(self, job_id: str | int) -> None:
        """Let a held job start."""
        self.command("scontrol", "release", str(job_id))

    def suspend(self, job_id: str | int) -> None:
        """Stop a running job for a while."""
        self.command("scontrol", "suspend", str(job_id))

    def resume(self, job_id: str | int) -> None:
        """Let a suspended job go on."""
        self.command("scontrol", "resume", str(job_id))

    # How all that is done

    @property
    def _path(self) -> str:
        """Return the folder of Slurm's own commands; a test may have wrappers on its own PATH."""
        folders = path_with_sbin().split(os.pathsep)
        return os.pathsep.join(folder for folder in folders if folder != str(self.wrapper_folder))

    def _queued(self, job_id: str | None = None) -> dict[tuple[str, str], Job]:
        which = [] if job_id is None else ["-j", job_id]
        text = self.command("squeue", "-h", "-r", "-t", "all", *which, "-O", _QUEUE_FIELDS, check=job_id is None)
        jobs = {}
        for line in text.splitlines():
            id_, state, status, restarts, name = (part.strip() for part in line.split("|", 4))
            # Slurm 22.05 prints a wait status.
            exit_code = status if ":" in status else f"{int(status) >> 8}:{int(status) & 127}"
            jobs[id_, name] = Job(id_, name, state, exit_code, int(restarts))
        return jobs

    def _written_down(self) -> dict[tuple[str, str], Job]:
        """Return the jobs that have ended: Slurm writes a line at the end of each run of each job.

        A controller that dies forgets its last jobs and may give their ids to others: so a job is an id and a name.
        """
        runs: dict[tuple[str, str], list[re.Match[str]]] = defaultdict(list)
        with suppress(FileNotFoundError):
            for line in (self._logs / "jobcomp.txt").read_text(errors="replace").splitlines():
                if found := _JOB_LINE.match(line):
                    runs[found["id"], found["name"]].append(found)
        return {key: Job(*key, of[-1]["state"], of[-1]["exit_code"], len(of) - 1) for key, of in runs.items()}

    def _node_states(self) -> dict[str, str]:
        lines = self.command("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t").splitlines()
        return dict(line.split() for line in lines)

    def _tails(self, paths: list[Path] | None = None) -> str:
        """Return the last lines of the logs, each under its path."""
        if paths is None:
            paths = sorted(self._logs.glob("*.log"))
        texts = [(path, path.read_text(errors="replace").splitlines()) for path in paths if path.exists()]
        # Debian's Slurm complains on each occasion of a library that is not used here.
        texts = [(path, [line for line in lines if "pmix" not in line]) for path, lines in texts]
        return "\n".join("\n".join([f"--- {path}", *lines[-_TAIL:]]) for path, lines in texts if lines)
