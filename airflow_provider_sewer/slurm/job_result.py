"""Result of a job, with a message: the event, the place and the fix."""

from __future__ import annotations

import re
import signal
from textwrap import indent
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.core.formats import JOB_EVENT
from airflow_provider_sewer.execution.module_errors import exit_description, lacks_main, module_not_found_line
from airflow_provider_sewer.slurm.client import SlurmClient
from airflow_provider_sewer.slurm.job import Job
from airflow_provider_sewer.slurm.job_script import runs_srun
from airflow_provider_sewer.slurm.last_lines import last_lines
from airflow_provider_sewer.slurm.states import TERMINAL_STATES, TerminalState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from airflow_provider_sewer.slurm.backend import JobStatus
    from airflow_provider_sewer.slurm.job import PendingJob
    from airflow_provider_sewer.slurm.job_directory import JobDirectory
    from airflow_provider_sewer.slurm.job_records import ExitRecord

#: Exit code of the job script when another job has claimed its job directory, or the attempt is cancelled.
NOT_ITS_TURN = 75
_NO_STREAM, _NO_WORKDIR, _CANNOT_WRITE, _CANNOT_READ, _NOT_OWN = 66, 72, 73, 74, 77

#: Messages of slurmstepd and srun about a step that was killed for its memory: by the kernel, or by slurmstepd itself
#: where the site has set JobAcctGatherParams=OverMemoryKill (recorded with 22.05 and 24.11).
_OUT_OF_MEMORY = re.compile(
    r"^(slurmstepd(-[^\s:]+)?|srun): (error: )?.*"
    r"(oom.?kill|out of memory|exceeded (job |step )?(virtual )?memory limit|exceeded vsize limit)",
    re.IGNORECASE,
)
#: srun's report on the end of tasks, and its words for killed ones.
_SRUN_REPORT = re.compile(r"^srun: error: \S+: tasks? [\d,\[\]-]+: (.*)")
_SRUN_KILLED = re.compile(r"Out Of Memory|Killed", re.IGNORECASE)
_KILLED = 128 + signal.SIGKILL
#: Since this version a job whose login environment cannot be created is cancelled before it begins.
_NEEDS_LOGIN = (25, 5)
#: Message of the job script when it cannot read its own files.
_SCRIPT_CANNOT_READ = "sewer: cannot read"

#: Message of the job script when it cannot open the file of the module's stdin or stdout.
_NO_STREAM_OPENED = "sewer: cannot open the file of "

_NO_SUCH_COMMAND = re.compile(
    r"^\S+: line \d+: .*: (No such file or directory|command not found|Permission denied|Is a directory"
    r"|bad interpreter.*|cannot execute.*|.*Exec format error.*|Not a directory)$"
)
_SLURM_COULD_NOT_START = 53
#: The first shell of the job script exits with this and the signal that ended the second one.
_ENDED_BY_SIGNAL = 128
_COMMAND_NOT_FOUND = (126, 127)


#: The keys of a job result in an event of the trigger.
_KEYS = ("error", "message", "job_id", "state", "exit_code", "node", "run_directory")
_DETAILS = ("job_id", "state", "exit_code", "node", "run_directory")


class JobResult(NamedTuple):
    """Result of a job, as data for a trigger's event.

    :param error: key of the error, see :data:`~airflow_provider_sewer.core.errors.KEYS`; ``None`` for a success.
    :param message: the event, the place and the fix.
    """

    error: str | None = None
    message: str = ""
    job_id: str | None = None
    state: str | None = None
    exit_code: int | None = None
    node: str | None = None
    run_directory: str | None = None

    def as_error(self) -> errors.SewerError:
        """Return the error to raise."""
        kind: Any = errors.KEYS.get(self.error or "", errors.SlurmError)
        details = dict(zip(_DETAILS, self[2:], strict=True))
        error: errors.SewerError = kind(self.message, **(details if issubclass(kind, errors.SlurmError) else {}))
        return error

    def to_event(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Return the event of a trigger.

        :param job: the data of the job.
        """
        return JOB_EVENT.written({"job": job, "ending": dict(zip(_KEYS, self, strict=True))})

    @classmethod
    def from_event(cls, event: Any) -> tuple[Job | PendingJob, JobResult]:
        """Return the job and its result from the event of a trigger.

        :raises UnreadableRecord: when another version has written it.
        """
        where = "the event of the trigger"
        event = JOB_EVENT.read(where, event)
        with JOB_EVENT.reading(where):
            return Job.from_dict(event["job"]), cls(*(event["ending"][key] for key in _KEYS))

    @classmethod
    def of_error(cls, error: errors.SewerError, directory: JobDirectory) -> JobResult:
        """Return the result of an attempt that failed with this error before it was a job."""
        return cls(errors.key_of(type(error)), error.message, run_directory=directory.path)


class JobResultFactory:
    """Factory of one job's results.

    :param job: the job.
    :param module: the module it ran.
    :param secrets: values to mask.
    """

    def __init__(self, job: Job, module: str, secrets: Collection[str]) -> None:
        self._job = job
        self._module = module
        self._secrets = secrets

    def success(self, record: ExitRecord) -> JobResult:
        """Return the result of a job whose record proves success."""
        return JobResult(
            job_id=self._job.ref.id,
            state="COMPLETED",
            exit_code=0,
            node=record.node,
            run_directory=self._job.directory.path,
        )

    def without_result(self, record: ExitRecord) -> JobResult:
        """Return the result of a job that succeeded, but whose return value has not appeared here."""
        text = f"succeeded on {record.node}, but its result, {record.result} bytes, has not appeared here."
        return self._result(errors.SlurmJobFailed, text, "COMPLETED", 0, record.node)

    def unreadable(self, error: errors.UnreadableRecord) -> JobResult:
        """Return the result of a job that may have succeeded, but whose record cannot be read."""
        return self._result(type(error), f"has ended, and may have succeeded, but {error.message}", None)

    def lost(self, state: str, waited: float) -> JobResult:
        """Return the result of a job that neither Slurm nor its records know the end of.

        :param state: the state that Slurm reports.
        :param waited: seconds for which it was waited for.
        """
        known = (
            "Slurm reports COMPLETED, but there is no exit record, so its success is not proven. "
            "Can the nodes write to the job directory, and is it the same directory here?"
            if state == "COMPLETED"
            else "neither slurmctld nor slurmdbd knows it any more, and there is no exit record"
            if self._job.cluster.kind == "slurm"
            else "its machine is another one that has given no sign of it, and there is no exit record"
        )
        began = self._job.directory.read_start()
        history = f"it began on {began.node}" if began else "its job directory has no record of its start"
        text = f"is lost: {known} ({history}; waited {waited:g} s)."
        return self._result(errors.SlurmJobLost, text, state or None)

    def unsatisfiable(self, status: JobStatus, reason: str) -> JobResult:
        """Return the result of a job that was cancelled because its pending reason is unsatisfiable."""
        text = f"waits for {status.reason!r}, which is unsatisfiable: {reason}. It has been cancelled."
        return self._result(errors.SlurmUnsatisfiable, text, status.state)

    def pending_too_long(self, status: JobStatus, limit: float) -> JobResult:
        """Return the result of a job that was cancelled because it was pending for too long."""
        text = (
            f"has not begun within max_pending_time, {limit:g} s; the last reason was {status.reason!r}. "
            "It has been cancelled."
        )
        return self._result(errors.SlurmPendingTooLong, text, status.state)

    def failure(self, status: JobStatus, record: ExitRecord | None) -> JobResult:
        """Return the result of a job that did not succeed."""
        stderr = last_lines(self._job.directory.stderr, self._secrets)
        end = TERMINAL_STATES.get(status.state, TERMINAL_STATES["FAILED"])
        if self._ran_out_of_memory(end, status, record, stderr):
            end = TERMINAL_STATES["OUT_OF_MEMORY"]
        elif (
            end is TERMINAL_STATES["FAILED"] and status.is_preempted and record and (record.asked or record.is_success)
        ):
            end = TERMINAL_STATES[
                "PREEMPTED"
            ]  # Slurm calls it FAILED or COMPLETED where it ends within GraceTime (22.05)
        elif end is TERMINAL_STATES["CANCELLED"] and record is None and status.node and not self._started_on():
            end = self._cancelled_before_start_reason()
        exit_code = record.exit_code if record and record.phase != "setup" else None
        node = (record.node if record else "") or status.node or self._started_on()
        if (seconds := self._job.directory.read_orphaned()) is not None:
            end = TerminalState(
                errors.SlurmCancelled,
                f"ended itself: no worker, triggerer or sppe monitored it for orphan_timeout, {seconds} s",
                "set a longer orphan_timeout if Airflow can be down for longer",
            )
        elif end is TERMINAL_STATES["FAILED"]:
            end = self._failure_reason(status, record, stderr)
        text = (
            f"{end.description}{f' on {node}' if node else ''}: {end.advice}{'' if end.advice.endswith('?') else '.'}"
        )
        return self._result(end.error, text, status.state, exit_code, node)

    def _ran_out_of_memory(
        self, end: TerminalState, status: JobStatus, record: ExitRecord | None, stderr: list[str]
    ) -> bool:
        """Return whether a step was killed for its memory, which Slurm does not always call OUT_OF_MEMORY.

        The messages of slurmstepd and srun are not enough, as a module can print them: a process must have been killed.
        """
        if end not in (TERMINAL_STATES["FAILED"], TERMINAL_STATES["CANCELLED"]):
            return False
        lines = [*last_lines(self._job.directory.stdout, self._secrets), *stderr]  # both, for stderr_to_stdout
        if not any(map(_OUT_OF_MEMORY.match, lines)):
            return False
        if record is None:
            was_killed = status.signal == signal.SIGKILL or status.exit_code in (None, _KILLED)
            return was_killed or end is TERMINAL_STATES["CANCELLED"]
        reports = [found.group(1) for found in map(_SRUN_REPORT.match, lines) if found]
        # All of them: the lines of srun and those of the module, which can look alike, come in no order.
        srun_killed = bool(reports) and all(map(_SRUN_KILLED.match, reports))
        has_srun = runs_srun(self._job.directory) or self._job.directory.has_own_steps
        return record.phase == "teardown" and (record.exit_code == _KILLED or (srun_killed and has_srun))

    def _cancelled_before_start_reason(self) -> TerminalState:
        """Return the likely causes for a job with a node that was cancelled before its script began.

        Slurm reports no reason for it.
        """
        cluster = self._job.cluster
        version = cluster.version() if isinstance(cluster, SlurmClient) else None
        login = (
            "its user's login environment could not be created there, because of a login shell such as nologin or a "
            "profile that fails: set slurm={'login_environment': False}; or "
        )
        return TERMINAL_STATES["CANCELLED"]._replace(
            description="was cancelled before its script began",
            advice=f"Slurm does this where {login if version is None or version >= _NEEDS_LOGIN else ''}"
            "the prolog of the node failed; or the node did not confirm the launch within MessageTimeout; or scancel "
            "was called",
        )

    def _failure_reason(self, status: JobStatus, record: ExitRecord | None, stderr: list[str]) -> TerminalState:
        failed = TERMINAL_STATES["FAILED"]
        if record is None:
            return self._failure_reason_without_record(status)
        code = record.exit_code
        if record.phase == "setup" and code == _CANNOT_READ and any(_SCRIPT_CANNOT_READ in line for line in stderr):
            return self._cannot_read()
        if record.phase == "setup":
            text = (
                "could not enter its working directory"
                if code == _NO_WORKDIR
                else "could not open the file of its stdin or stdout"
                if code == _NO_STREAM and any(_NO_STREAM_OPENED in line for line in stderr)
                else f"was ended by its `setup` with exit code {code}"
            )
            return failed._replace(description=text, advice="the module has not been run")
        if record.asked:
            text = f"was asked to end by SIG{record.asked}, and {self._module} ended with exit code {code}"
            return failed._replace(
                description=text, advice="scancel, a preemption with GraceTime, or another process has signalled it"
            )
        if record.phase == "module":
            text = f"had its script ended from outside while it ran {self._module}"
            return failed._replace(
                description=text, advice="its output may name the sender, such as the job's own `signal` option"
            )
        if missing := module_not_found_line(self._module, code, stderr):
            if lacks_main(missing):
                return failed._replace(
                    description=f"ran package {self._module!r}, which has no __main__.py",
                    advice="add that file, or name a module in the package",
                )
            return failed._replace(
                description=f"found no module to run as {self._module!r} ({missing})",
                advice="install it for this interpreter, or correct the name",
            )
        if code in _COMMAND_NOT_FOUND and stderr and _NO_SUCH_COMMAND.search(stderr[-1]):
            return failed._replace(
                description=f"could not start its interpreter (exit code {code})", advice="does it exist on the node?"
            )
        return failed._replace(description=f"ran {self._module}, which {exit_description(code)}")

    def _failure_reason_without_record(self, status: JobStatus) -> TerminalState:
        launch, path = TERMINAL_STATES["LAUNCH_FAILED"], self._job.directory.path
        code = status.exit_code
        signal = status.signal or max(0, (code or 0) - _ENDED_BY_SIGNAL)
        if status.signal == _SLURM_COULD_NOT_START:
            return launch._replace(
                advice=f"the node could not open the job's output in its job directory {path}: the directory has to "
                "exist, shared with the nodes and writable on them; the log of the node's slurmd has the reason"
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
                description=f"found its job directory {path} open to other users, and ran nothing",
                advice="check the owner of the directory and of its parents, and set a run_dir in which only this user "
                "can write",
            )
        if code == NOT_ITS_TURN:
            return launch._replace(
                description="found its run directory taken by another job, or cancelled",
                advice="clear the task to run it again",
            )
        text = (
            "was killed or has ended by a restart of the machine"
            if status.reason == "ProcessGone"
            else f"was ended by signal {signal}"
            if signal
            else "ended with an unknown exit code"
            if code is None
            else f"ended with exit code {code}"
        )
        return TERMINAL_STATES["FAILED"]._replace(
            description=f"{text} and left no exit record", advice="see its output and the node's log"
        )

    def _cannot_read(self) -> TerminalState:
        path = self._job.directory.path
        return TERMINAL_STATES["LAUNCH_FAILED"]._replace(
            description=f"found no readable files in its job directory {path}",
            advice="either run_dir is not shared with the nodes, so that the node has its own folder at that path, or "
            "the files were removed while the job waited",
        )

    def _started_on(self) -> str:
        start = self._job.directory.read_start()
        return start.node if start else ""

    def _result(
        self,
        error: type[errors.SewerError],
        text: str,
        state: str | None,
        exit_code: int | None = None,
        node: str | None = None,
    ) -> JobResult:
        path = self._job.directory.path
        message = f"{self._job} {text}{self._tail()}\nIts files are in {path}"
        return JobResult(errors.key_of(error), message, self._job.ref.id, state, exit_code, node or None, path)

    def _tail(self) -> str:
        for name, path in (("stderr", self._job.directory.stderr), ("stdout", self._job.directory.stdout)):
            if lines := last_lines(path, self._secrets):
                return f"\nThe last lines of {name}:\n{indent(chr(10).join(lines), '  ')}"
        return "\nIt wrote nothing."
