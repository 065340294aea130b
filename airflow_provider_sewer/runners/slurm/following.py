"""Follow one job from its submission to its end, and say how it ended.

Truth comes from three sources in a fixed order: the record that the job script writes, the controller,
and accounting. Nothing but the record makes a success. No answer says nothing; it is waited for.
"""

from __future__ import annotations

import math
import os
import re
import time
from contextlib import suppress
from datetime import datetime
from textwrap import indent
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core import errors
from airflow_provider_sewer.runners.module import how_it_ended, says_missing
from airflow_provider_sewer.runners.slurm.cluster import NOT_KNOWN, Cluster, JobRef, NoAnswer, Sighting
from airflow_provider_sewer.runners.slurm.logs import JobLogs, last_lines
from airflow_provider_sewer.runners.slurm.states import ENDED, ENDS, MAY_COME_BACK, WAITING, End, why_hopeless

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_sewer.runners.output import Sink
    from airflow_provider_sewer.runners.slurm.run_directory import ExitRecord, RunDirectory
    from airflow_provider_sewer.runners.slurm.watcher import View

#: Seconds that files of a job that has ended may take to appear here in full: network file systems cache.
_FILES_GRACE = 60.0
#: Seconds to wait for Slurm's reason when the record says that the module failed, and for the record when Slurm does.
_REASON_GRACE = 30.0
_RECORD_GRACE = 3.0
#: Seconds in which a job that may be requeued shows up in the queue again.
_COMES_BACK = 15.0
#: As many megabytes of output are handed on at one look, so that no job holds up another.
_MOST_CHUNKS = 32

_OOM = re.compile(r"^(slurmstepd|srun): error: .*(oom.?kill|out of memory)", re.IGNORECASE)
_CANNOT_WRITE, _NOT_ITS_TURN, _NO_WORKDIR = 73, 75, 72
_SLURM_COULD_NOT_START = 53
_COMMAND_NOT_FOUND = (126, 127)


class Patience(NamedTuple):
    """How long, and for what, a job is waited for.

    :param max_pending_time: seconds that it may wait for its start.
    :param fail_on_pending_reason: reasons for which it is given up; the built-in ones if ``None``.
    :param lost_after: seconds after which a job that nobody knows is a failure.
    :param requeue: whether Slurm may start it anew.
    """

    max_pending_time: float | None
    fail_on_pending_reason: tuple[str, ...] | None
    lost_after: float
    requeue: bool


class Ending(NamedTuple):
    """How a job ended, as data that can go through a trigger's event.

    :param error: name of the error it is; ``None`` for a success.
    :param message: what happened, where, and what to do.
    """

    error: str | None = None
    message: str = ""
    job_id: str | None = None
    state: str | None = None
    exit_code: int | None = None
    node: str | None = None
    run_directory: str | None = None

    def as_error(self) -> errors.SlurmError:
        """Return the error, to be raised."""
        kind: type[errors.SlurmError] = getattr(errors, self.error or "SlurmError")
        details = self._asdict()
        del details["error"], details["message"]
        return kind(self.message, **details)


class Job(NamedTuple):
    """A job that has been submitted.

    :param ref: what it is known by.
    :param directory: its run directory.
    :param cluster: where it runs.
    :param submitted: when, in seconds since the epoch.
    """

    ref: JobRef
    directory: RunDirectory
    cluster: Cluster
    submitted: float

    def cancel(self, *, timeout: float) -> None:
        """Have it ended: by the cluster, and by the job script itself while nobody can reach the cluster.

        :param timeout: seconds that this may take.
        :raises NoAnswer: when the cluster was perhaps not reached; the job script sees to it then.
        """
        with suppress(OSError):  # the cluster may still hear of it
            self.directory.cancel()
        self.cluster.cancel(self.ref, timeout=timeout)

    def __str__(self) -> str:
        return f"{'Slurm job' if self.cluster.kind == 'slurm' else 'local job'} {self.ref.id} ({self.ref.name})"


class JobFollower:
    """Follows a job, one look after the other.

    :param job: the job.
    :param module: the module it runs.
    :param patience: how long, and for what, it is waited for.
    :param sink: takes its output as it comes.
    :param say: told what becomes of it, a line each.
    :param secrets: values that must not be shown.
    """

    def __init__(
        self,
        job: Job,
        module: str,
        patience: Patience,
        sink: Sink,
        say: Callable[[str], None],
        secrets: Collection[str] = (),
    ) -> None:
        self._job = job
        self._module = module
        self._patience = patience
        self._say = say
        self._secrets = secrets
        self._logs = JobLogs(job.directory, sink, secrets)
        self._said = ""
        self._since: dict[str, float] = {}
        self._sighting: Sighting | None = None
        self.wants_news = False

    def look(self, view: View | None) -> Ending | None:
        """Hand on what the job has written since the last look, and return how it ended if it has.

        :param view: what the watcher has seen since; ``None`` if nothing.
        """
        self.wants_news = False
        for _ in range(_MOST_CHUNKS):
            if not self._logs.pump():
                break
        else:
            return None  # first things first: there is more output than one look takes
        if view is not None:
            self._take(view)
        record = self._read_record()
        if record is not None and record.is_success:
            return self._succeeded(record)
        return self._without_success(record)

    def _take(self, view: View) -> None:
        if view.sighting is None:
            self._tell(f"No answer about {self._job}, waiting for one: {view.silence}")
            return
        self._sighting = view.sighting
        self._tell(_described(self._job, view.sighting))

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)

    def _read_record(self) -> ExitRecord | None:
        try:
            return self._job.directory.read_exit()
        except (OSError, ValueError) as error:
            self._tell(f"The exit record of {self._job} cannot be read, waiting: {error}")
            return None

    def _has_lasted(self, what: str, seconds: float) -> bool:
        """Tell whether something has been so for this long, without a break; asked at every look."""
        now = time.monotonic()
        return now - self._since.setdefault(what, now) >= seconds

    def _only(self, *still: str) -> None:
        """Forget since when other things have been so."""
        self._since = {what: since for what, since in self._since.items() if what in still}

    # -- Success -------------------------------------------------------------------------------------------------------

    def _succeeded(self, record: ExitRecord) -> Ending | None:
        are_here = (
            self._logs.has_reached(record.stdout, record.stderr) and _size(self._job.directory.result) >= record.result
        )
        if not are_here and not self._has_lasted("files", _FILES_GRACE):
            return None
        self._logs.finish()
        if self._patience.requeue:
            self._job.directory.cancel()  # lest a node that was given up too early is followed by a second run
        return Ending(
            job_id=self._job.ref.id,
            state="COMPLETED",
            exit_code=0,
            node=record.node,
            run_directory=self._job.directory.path,
        )

    # -- Everything else -----------------------------------------------------------------------------------------------

    def _without_success(self, record: ExitRecord | None) -> Ending | None:
        sighting = self._sighting
        if sighting is None:
            self._only("record")
            return self._failed_by_record(record, None) if record else None
        if sighting.state in ENDED:
            return self._after_end(record, sighting)
        if sighting is NOT_KNOWN or not sighting.state:
            self._only("record", "lost")
            return self._failed_by_record(record, None) if record else self._perhaps_lost()
        if record is not None and sighting.state not in WAITING:
            self._only("record")
            return self._failed_by_record(record, sighting)
        self._only()
        return self._waits_in_vain(sighting) if sighting.state in WAITING else None

    def _failed_by_record(self, record: ExitRecord, sighting: Sighting | None) -> Ending | None:
        """Wait for the reason that Slurm has; one that was asked to end may yet be run again."""
        self.wants_news = True
        grace = math.inf if record.asked and self._patience.requeue else _REASON_GRACE
        if not self._has_lasted("record", grace):
            return None
        state = "CANCELLED" if record.asked else "FAILED"
        return self._ended(sighting._replace(state=state) if sighting else Sighting(state), record)

    def _after_end(self, record: ExitRecord | None, sighting: Sighting) -> Ending | None:
        self._only("end", "lost")
        comes_back = self._patience.requeue and sighting.state in MAY_COME_BACK and (record is None or record.asked)
        if comes_back and not self._has_lasted("end", _COMES_BACK):
            self.wants_news = True
            return None
        if record is not None:
            return self._ended(sighting, record)
        if sighting.state == "COMPLETED":
            return self._perhaps_lost()
        return self._ended(sighting, None) if self._has_lasted("end", _RECORD_GRACE) else None

    def _perhaps_lost(self) -> Ending | None:
        self.wants_news = True
        if not self._has_lasted("lost", self._patience.lost_after):
            return None
        self._logs.finish()
        self._give_up()
        state = self._sighting.state if self._sighting else ""
        known = (
            "Slurm says COMPLETED, but there is no exit record of it; that is no evidence of success. "
            "Can the nodes write to the run directory, and is it the same folder here?"
            if state == "COMPLETED"
            else "neither the controller nor accounting knows it any more, and there is no exit record"
        )
        began = self._job.directory.read_start()
        history = f"it began on {began.node}" if began else "it never began, as far as its run directory says"
        return self._ending(
            errors.SlurmJobLost, f"is lost: {known} ({history}; waited {self._patience.lost_after:g} s).", state or None
        )

    def _waits_in_vain(self, sighting: Sighting) -> Ending | None:
        why = why_hopeless(sighting.reason, self._patience.fail_on_pending_reason)
        if why:
            self._give_up()
            return self._ending(
                errors.SlurmPendingHopeless,
                f"waits for {sighting.reason!r}, and that in vain: {why}. It has been cancelled.",
                sighting.state,
            )
        limit = self._patience.max_pending_time
        has_begun = self._job.directory.read_start() is not None
        if limit is not None and not has_begun and time.time() - self._job.submitted > limit:
            self._give_up()
            return self._ending(
                errors.SlurmPendingTooLong,
                f"has not begun within max_pending_time, {limit:g} s; the last reason was {sighting.reason!r}. "
                "It has been cancelled.",
                sighting.state,
            )
        return None

    def _give_up(self) -> None:
        try:
            self._job.cancel(timeout=_RECORD_GRACE * 5)
        except NoAnswer as error:
            self._say(f"{self._job} was told to end by its run directory only: {error}")

    # -- How it ended --------------------------------------------------------------------------------------------------

    def _ended(self, sighting: Sighting, record: ExitRecord | None) -> Ending:
        self._logs.finish()
        stderr = last_lines(self._job.directory.stderr, self._secrets)
        state = "OUT_OF_MEMORY" if any(map(_OOM.match, stderr)) else sighting.state
        end = ENDS.get(state, ENDS["FAILED"])
        exit_code = record.exit_code if record else sighting.exit_code
        node = (record.node if record else "") or sighting.node or self._started_on()
        if end is ENDS["FAILED"]:
            end = self._why_failed(sighting, record, stderr)
        return self._ending(
            end.error, f"{end.what}{f' on {node}' if node else ''}: {end.advice}.", sighting.state, exit_code, node
        )

    def _why_failed(self, sighting: Sighting, record: ExitRecord | None, stderr: list[str]) -> End:
        failed = ENDS["FAILED"]
        if record is None:
            return self._why_failed_without_record(sighting)
        code = record.exit_code
        if record.phase == "setup":
            what = (
                "could not enter its working directory"
                if code == _NO_WORKDIR
                else f"was ended by its `setup` with exit code {code}"
            )
            return failed._replace(what=what, advice="the module has not been run")
        if said := says_missing(self._module, code, stderr):
            return failed._replace(
                what=f"found no module to run as {self._module!r} ({said})",
                advice="install it for this interpreter, or correct the name",
            )
        if code in _COMMAND_NOT_FOUND:
            return failed._replace(
                what=f"could not start its interpreter (exit code {code})", advice="is it there on the node?"
            )
        return failed._replace(what=f"ran {self._module}, which {how_it_ended(code)}")

    def _why_failed_without_record(self, sighting: Sighting) -> End:
        launch = ENDS["LAUNCH_FAILED"]
        if sighting.signal == _SLURM_COULD_NOT_START:
            return launch
        if sighting.exit_code == _CANNOT_WRITE:
            return launch._replace(
                what="could not write into its run directory", advice="is its disk full, and can the node write there?"
            )
        if sighting.exit_code == _NOT_ITS_TURN:
            return launch._replace(
                what="found the run directory taken by another job, or cancelled",
                advice="clear the task to run it anew",
            )
        what = (
            f"was ended by signal {sighting.signal}"
            if sighting.signal
            else f"ended with exit code {sighting.exit_code}"
        )
        if sighting.reason == "ProcessGone":
            what = "is gone, killed or by a restart of the machine"
        return ENDS["FAILED"]._replace(
            what=f"{what} and left no exit record", advice="its output and the node's log may say why"
        )

    def _started_on(self) -> str:
        start = self._job.directory.read_start()
        return start.node if start else ""

    def _ending(
        self,
        error: type[errors.SlurmError],
        what: str,
        state: str | None,
        exit_code: int | None = None,
        node: str | None = None,
    ) -> Ending:
        path = self._job.directory.path
        message = f"{self._job} {what}{self._tail()}\nIts files are in {path}"
        return Ending(error.__name__, message, self._job.ref.id, state, exit_code, node or None, path)

    def _tail(self) -> str:
        for name, path in (("stderr", self._job.directory.stderr), ("stdout", self._job.directory.stdout)):
            if lines := last_lines(path, self._secrets):
                return f"\nThe last lines of {name}:\n{indent(chr(10).join(lines), '  ')}"
        return "\nIt wrote nothing."


def _described(job: Job, sighting: Sighting) -> str:
    """Say in a line how a job stands; the same line for the same thing."""
    if not sighting.state:
        return f"Nobody knows {job} any more; waiting for its exit record"
    words = [f"{job} is {sighting.state}"]
    if sighting.restarts:
        words.append(f", restarted {sighting.restarts} times" if sighting.restarts > 1 else ", restarted once")
    if sighting.state in WAITING:
        words.append(f", waiting for {sighting.reason}" if sighting.reason else "")
        if sighting.start:
            words.append(f"; expected to start at {_clock(sighting.start)}")
    elif sighting.node:
        words.append(f" on {sighting.node}")
    return "".join(words)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
