"""How a job ended, and what there is to say about it: what happened, where, and what to do."""

from __future__ import annotations

import re
import signal
from textwrap import indent
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.execution.module_runner import exit_description, module_not_found_line
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job_script import runs_srun
from airflow_provider_sewer.slurm.log_tailer import last_lines
from airflow_provider_sewer.slurm.states import TERMINAL_STATES, TerminalState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_sewer.slurm.backend import JobStatus
    from airflow_provider_sewer.slurm.job import Job
    from airflow_provider_sewer.slurm.job_directory import ExitRecord, JobDirectory

#: What the job script exits with when another job has its run directory, or when that says that it is cancelled.
NOT_ITS_TURN = 75
_NO_WORKDIR, _CANNOT_WRITE, _CANNOT_READ, _NOT_OWN = 72, 73, 74, 77

#: What slurmstepd and srun print of a step that was killed for its memory: by the kernel, or by slurmstepd itself where
#: the site has set JobAcctGatherParams=OverMemoryKill (recorded with 22.05 and 24.11).
_OUT_OF_MEMORY = re.compile(
    r"^(slurmstepd(-[^\s:]+)?|srun): (error: )?.*"
    r"(oom.?kill|out of memory|exceeded (job |step )?(virtual )?memory limit|exceeded vsize limit)",
    re.IGNORECASE,
)
#: What srun prints of the end of tasks, and how it puts that they were killed.
_SRUN_REPORT = re.compile(r"^srun: error: \S+: tasks? [\d,\[\]-]+: (.*)")
_SRUN_KILLED = re.compile(r"Out Of Memory|Killed", re.IGNORECASE)
_KILLED = 128 + signal.SIGKILL
#: Since then a login environment that cannot be made has a job cancelled before it begins.
_NEEDS_LOGIN = (25, 5)
#: What the job script prints when it cannot read its own files.
_SCRIPT_CANNOT_READ = "sewer: cannot read"

_NO_SUCH_COMMAND = re.compile(
    r"^\S+: line \d+: .*: (No such file or directory|command not found|Permission denied|Is a directory"
    r"|bad interpreter.*|cannot execute.*|.*Exec format error.*|Not a directory)$"
)
_SLURM_COULD_NOT_START = 53
#: The first shell of the job script exits with this and the signal that ended the second one.
_ENDED_BY_SIGNAL = 128
_COMMAND_NOT_FOUND = (126, 127)


#: The keys of an ending in an event of the trigger.
_ENDING = ("error", "message", "job_id", "state", "exit_code", "node", "run_directory")
_DETAILS = ("job_id", "state", "exit_code", "node", "run_directory")


class JobResult(NamedTuple):
    """How a job ended, as data that can go through a trigger's event.

    :param error: key of the error it is, see :data:`~airflow_provider_sewer.core.errors.KEYS`; ``None`` for a success.
    :param message: what happened, where, and what to do.
    """

    error: str | None = None
    message: str = ""
    job_id: str | None = None
    state: str | None = None
    exit_code: int | None = None
    node: str | None = None
    run_directory: str | None = None

    def as_error(self) -> errors.SewerError:
        """Return the error, to be raised."""
        kind: Any = errors.KEYS.get(self.error or "", errors.SlurmError)
        details = dict(zip(_DETAILS, self[2:], strict=True))
        error: errors.SewerError = kind(self.message, **(details if issubclass(kind, errors.SlurmError) else {}))
        return error

    def to_data(self) -> dict[str, Any]:
        """Return what goes through an event."""
        return dict(zip(_ENDING, self, strict=True))

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> JobResult:
        """Return what :meth:`to_data` has returned.

        :raises LookupError: when it is not whole.
        """
        return cls(*(data[key] for key in _ENDING))

    @classmethod
    def of_error(cls, error: errors.SewerError, directory: JobDirectory) -> JobResult:
        """Return the end of an attempt that never was a job, for this reason."""
        return cls(errors.key_of(type(error)), error.message, run_directory=directory.path)


class JobResultFactory:
    """What to say of the end of one job.

    :param job: the job.
    :param module: the module it ran.
    :param secrets: values that must not be shown.
    """

    def __init__(self, job: Job, module: str, secrets: Collection[str]) -> None:
        self._job = job
        self._module = module
        self._secrets = secrets

    def success(self, record: ExitRecord) -> JobResult:
        """Return a success, which its record says."""
        return JobResult(
            job_id=self._job.ref.id,
            state="COMPLETED",
            exit_code=0,
            node=record.node,
            run_directory=self._job.directory.path,
        )

    def without_result(self, record: ExitRecord) -> JobResult:
        """Return the end of a job that succeeded, and whose result cannot be seen here."""
        what = f"succeeded on {record.node}, but its result, {record.result} bytes, has not appeared here."
        return self._ending(errors.SlurmJobFailed, what, "COMPLETED", 0, record.node)

    def unreadable(self, error: errors.UnreadableRecord) -> JobResult:
        """Return the end of a job that may have succeeded, and whose record cannot be read."""
        return self._ending(type(error), f"has ended, and may have succeeded, but {error.message}", None)

    def lost(self, state: str, waited: float) -> JobResult:
        """Return the end of a job that nobody can say anything of.

        :param state: what Slurm says of it.
        :param waited: seconds for which it was waited for.
        """
        known = (
            "Slurm says COMPLETED, but there is no exit record of it; that is no evidence of success. "
            "Can the nodes write to the run directory, and is it the same folder here?"
            if state == "COMPLETED"
            else "neither the controller nor accounting knows it any more, and there is no exit record"
            if self._job.cluster.kind == "slurm"
            else "its machine is not this one and has given no sign of it, and there is no exit record"
        )
        began = self._job.directory.read_start()
        history = f"it began on {began.node}" if began else "it never began, as far as its run directory says"
        what = f"is lost: {known} ({history}; waited {waited:g} s)."
        return self._ending(errors.SlurmJobLost, what, state or None)

    def unsatisfiable(self, sighting: JobStatus, why: str) -> JobResult:
        """Return the end of a job that waited in vain, and has been cancelled."""
        what = f"waits for {sighting.reason!r}, and that in vain: {why}. It has been cancelled."
        return self._ending(errors.SlurmUnsatisfiable, what, sighting.state)

    def pending_too_long(self, sighting: JobStatus, limit: float) -> JobResult:
        """Return the end of a job that waited for longer than it may, and has been cancelled."""
        what = (
            f"has not begun within max_pending_time, {limit:g} s; the last reason was {sighting.reason!r}. "
            "It has been cancelled."
        )
        return self._ending(errors.SlurmPendingTooLong, what, sighting.state)

    def failure(self, sighting: JobStatus, record: ExitRecord | None) -> JobResult:
        """Return the end of a job that did not succeed."""
        stderr = last_lines(self._job.directory.stderr, self._secrets)
        end = TERMINAL_STATES.get(sighting.state, TERMINAL_STATES["FAILED"])
        if self._ran_out_of_memory(end, sighting, record, stderr):
            end = TERMINAL_STATES["OUT_OF_MEMORY"]
        elif (
            end is TERMINAL_STATES["FAILED"]
            and sighting.is_preempted
            and record
            and (record.asked or record.is_success)
        ):
            end = TERMINAL_STATES[
                "PREEMPTED"
            ]  # Slurm calls it FAILED or COMPLETED where it ends within GraceTime (22.05)
        elif end is TERMINAL_STATES["CANCELLED"] and record is None and sighting.node and not self._started_on():
            end = self._cancelled_before_start_reason()
        exit_code = record.exit_code if record and record.phase != "setup" else None
        node = (record.node if record else "") or sighting.node or self._started_on()
        if (seconds := self._job.directory.read_orphaned()) is not None:
            end = TerminalState(
                errors.SlurmCancelled,
                f"ended itself: no worker, triggerer or sppe followed it for orphan_timeout, {seconds} s",
                "set a longer orphan_timeout if Airflow can be away for longer",
            )
        elif end is TERMINAL_STATES["FAILED"]:
            end = self._failure_reason(sighting, record, stderr)
        what = (
            f"{end.description}{f' on {node}' if node else ''}: {end.advice}{'' if end.advice.endswith('?') else '.'}"
        )
        return self._ending(end.error, what, sighting.state, exit_code, node)

    def _ran_out_of_memory(
        self, end: TerminalState, sighting: JobStatus, record: ExitRecord | None, stderr: list[str]
    ) -> bool:
        """Tell whether a step was killed for its memory, which Slurm does not always call OUT_OF_MEMORY.

        The words of slurmstepd and srun are not enough, as a module can print them: something was killed as well.
        """
        if end not in (TERMINAL_STATES["FAILED"], TERMINAL_STATES["CANCELLED"]):
            return False
        lines = [*last_lines(self._job.directory.stdout, self._secrets), *stderr]  # both, for stderr_to_stdout
        if not any(map(_OUT_OF_MEMORY.match, lines)):
            return False
        if record is None:
            was_killed = sighting.signal == signal.SIGKILL or sighting.exit_code in (None, _KILLED)
            return was_killed or end is TERMINAL_STATES["CANCELLED"]
        reports = [found.group(1) for found in map(_SRUN_REPORT.match, lines) if found]
        # All of them: the lines of srun and those of the module, which can look alike, come in no order.
        srun_killed = bool(reports) and all(map(_SRUN_KILLED.match, reports)) and runs_srun(self._job.directory)
        return record.phase == "teardown" and (record.exit_code == _KILLED or srun_killed)

    def _cancelled_before_start_reason(self) -> TerminalState:
        """Say why a job that had a node was cancelled before its script began, of which Slurm gives no reason."""
        cluster = self._job.cluster
        version = cluster.version() if isinstance(cluster, SlurmClient) else None
        login = (
            "its user's login environment could not be made there, for a login shell such as nologin or a profile that "
            "fails: set slurm={'login_environment': False}; or "
        )
        return TERMINAL_STATES["CANCELLED"]._replace(
            description="was cancelled before its script began",
            advice=f"Slurm does this where {login if version is None or version >= _NEEDS_LOGIN else ''}"
            "the prolog of the node failed; or scancel was called",
        )

    def _failure_reason(self, sighting: JobStatus, record: ExitRecord | None, stderr: list[str]) -> TerminalState:
        failed = TERMINAL_STATES["FAILED"]
        if record is None:
            return self._failure_reason_without_record(sighting)
        code = record.exit_code
        if record.phase == "setup" and code == _CANNOT_READ and any(_SCRIPT_CANNOT_READ in line for line in stderr):
            return self._cannot_read()
        if record.phase == "setup":
            what = (
                "could not enter its working directory"
                if code == _NO_WORKDIR
                else f"was ended by its `setup` with exit code {code}"
            )
            return failed._replace(description=what, advice="the module has not been run")
        if record.asked:
            what = f"was asked to end by SIG{record.asked}, and {self._module} ended with exit code {code}"
            return failed._replace(
                description=what, advice="scancel, a preemption with GraceTime, or another process has signalled it"
            )
        if record.phase == "module":
            what = f"had its script ended from outside while it ran {self._module}"
            return failed._replace(
                description=what, advice="its output may say by whom; a signal that it asked for itself?"
            )
        if said := module_not_found_line(self._module, code, stderr):
            return failed._replace(
                description=f"found no module to run as {self._module!r} ({said})",
                advice="install it for this interpreter, or correct the name",
            )
        if code in _COMMAND_NOT_FOUND and stderr and _NO_SUCH_COMMAND.search(stderr[-1]):
            return failed._replace(
                description=f"could not start its interpreter (exit code {code})", advice="is it there on the node?"
            )
        return failed._replace(description=f"ran {self._module}, which {exit_description(code)}")

    def _failure_reason_without_record(self, sighting: JobStatus) -> TerminalState:
        launch, path = TERMINAL_STATES["LAUNCH_FAILED"], self._job.directory.path
        code = sighting.exit_code
        signal = sighting.signal or max(0, (code or 0) - _ENDED_BY_SIGNAL)
        if sighting.signal == _SLURM_COULD_NOT_START:
            return launch._replace(
                advice=f"the node could not open the output of the job in its run directory {path}: that has to be "
                "there, shared with the nodes and writable on them; the log of the node's slurmd has the reason"
            )
        if code == _NO_WORKDIR:
            return launch._replace(
                description="could not enter its working directory", advice="the module has not been run"
            )
        if code == _CANNOT_WRITE:
            return launch._replace(
                description="could not write into its run directory",
                advice=f"is its disk full, is run_dir shared with the nodes, and can the node write to {path}?",
            )
        if code == _CANNOT_READ:
            return self._cannot_read()
        if code == _NOT_OWN:
            return launch._replace(
                description=f"found its run directory {path} open to other users, and ran nothing",
                advice="who owns it, and a folder that it is in? Set a run_dir in which only this user can write",
            )
        if code == NOT_ITS_TURN:
            return launch._replace(
                description="found the run directory taken by another job, or cancelled",
                advice="clear the task to run it anew",
            )
        what = (
            "is gone, killed or by a restart of the machine"
            if sighting.reason == "ProcessGone"
            else f"was ended by signal {signal}"
            if signal
            else "ended with an exit code that Slurm does not show"
            if code is None
            else f"ended with exit code {code}"
        )
        return TERMINAL_STATES["FAILED"]._replace(
            description=f"{what} and left no exit record", advice="its output and the node's log may say why"
        )

    def _cannot_read(self) -> TerminalState:
        path = self._job.directory.path
        return TERMINAL_STATES["LAUNCH_FAILED"]._replace(
            description=f"found no readable files in its run directory {path}",
            advice="either run_dir is not shared with the nodes, so that the node has a folder of its own there, or "
            "the files were removed while the job waited",
        )

    def _started_on(self) -> str:
        start = self._job.directory.read_start()
        return start.node if start else ""

    def _ending(
        self,
        error: type[errors.SewerError],
        what: str,
        state: str | None,
        exit_code: int | None = None,
        node: str | None = None,
    ) -> JobResult:
        path = self._job.directory.path
        message = f"{self._job} {what}{self._tail()}\nIts files are in {path}"
        return JobResult(errors.key_of(error), message, self._job.ref.id, state, exit_code, node or None, path)

    def _tail(self) -> str:
        for name, path in (("stderr", self._job.directory.stderr), ("stdout", self._job.directory.stdout)):
            if lines := last_lines(path, self._secrets):
                return f"\nThe last lines of {name}:\n{indent(chr(10).join(lines), '  ')}"
        return "\nIt wrote nothing."
