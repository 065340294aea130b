"""Follow one job from its submission to its end, and say how it ended.

Truth comes from three sources in a fixed order: the record that the job script writes, the controller,
and accounting. Nothing but the record makes a success. No answer says nothing; it is waited for.
"""

from __future__ import annotations

import math
import os
import time
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import UnreadableRecord
from airflow_provider_sewer.slurm.backend import MISSING_ARRAY_TASK, UNKNOWN_JOB, JobStatus, SlurmUnreachable
from airflow_provider_sewer.slurm.job_result import NOT_ITS_TURN, JobResultFactory
from airflow_provider_sewer.slurm.log_tailer import JobLogs
from airflow_provider_sewer.slurm.monitor_lease import MonitorLease
from airflow_provider_sewer.slurm.states import ENDED, KNOWN, REQUEUEABLE, WAITING, unsatisfiable_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_sewer.execution.output import Sink
    from airflow_provider_sewer.slurm.job import Job
    from airflow_provider_sewer.slurm.job_directory import ExitRecord
    from airflow_provider_sewer.slurm.job_result import JobResult
    from airflow_provider_sewer.slurm.log_tailer import TriggerLog
    from airflow_provider_sewer.slurm.status_poller import StatusUpdate

#: Seconds that files of a job that has ended may take to appear here in full: network file systems cache.
_FILES_GRACE = 60.0
#: Seconds to wait for Slurm's reason when the record says that the job failed.
_REASON_GRACE = 30.0
#: States of a job that Slurm has ended by signals. They outweigh an exit code of 0 where the job script has not
#: ruled out that its module had been signalled.
_ENDED_BY_SIGNALS = frozenset({"CANCELLED", "TIMEOUT", "PREEMPTED", "DEADLINE"})
#: Seconds after an end that Slurm tells of: the record may take that long to appear here, and a job that may be
#: requeued to show up in the queue again. On this machine both are seen at once.
_SETTLES = {"slurm": 15.0, "local": 0.0}
#: Seconds for which a conclusion that is near makes the watcher hurry.
_POLL_AT_ONCE = 60.0
_GIVE_UP_TIMEOUT = 15.0
#: Seconds without a look after which a follower is taken for dead, at least.
_DEAD_AFTER = 120.0
#: Seconds after which a job that is marked as cancelled, and still waits in the queue, is cancelled once more.
_CANCEL_AGAIN = 30.0
#: Seconds between two records of how long Slurm has not known the job.
_RECORD_UNKNOWN_EVERY = 5.0
_GOES_ON, _DONE, _UNSURE, _FAILED, _LOST = "goes on", "done", "unsure", "failed", "lost"
#: As many pieces of output, of 32 KiB each, are handed on at one look, so that no job holds up another.
_MOST_PIECES = 1024


class WaitPolicy(NamedTuple):
    """How long, and for what, a job is waited for.

    :param max_pending_time: seconds that it may wait for its start.
    :param fail_on_pending_reason: reasons for which it is given up; the built-in ones if ``None``.
    :param lost_after: seconds after which a job that nobody knows is a failure.
    :param requeue: whether Slurm may start it anew.
    :param look_every: seconds between two looks at the job, at most.
    """

    max_pending_time: float | None
    fail_on_pending_reason: tuple[str, ...] | None
    lost_after: float
    requeue: bool
    look_every: float = 0.0


class _Rule(NamedTuple):
    """What is concluded of how things are.

    :param what: one word for it.
    :param conclude: returns the ending.
    :param after: seconds for which this has to be so at every look.
    :param in_silence: whether time counts in which Slurm does not answer.
    """

    what: str
    conclude: Callable[[], JobResult | None]
    after: float = 0.0
    in_silence: bool = True


class JobMonitor:
    """Follows a job, one look after the other.

    What is concluded depends on what the job's own record says, and on how Slurm has the job:

    ================  =================  ==========================  ==============  ============  ============
    Slurm             no record          asked to end                failed          0 [2]_        success
    ================  =================  ==========================  ==============  ============  ============
    has not answered  waits              failed in 30 s [1]_         failed in 30 s  in 30 s       success
    has it waiting    in vain? for long? failed in 30 s [1]_         failed in 30 s  in 30 s [1]_  success
    has it running    waits              failed in 30 s [1]_         failed in 30 s  in 30 s       success
    has it failed     failed in 15 s     failed, or in 15 s [1]_     failed          success [3]_  success
    COMPLETED         lost in lost_after failed                      failed          success       success
    not in its array  cancelled in 60 s  failed, or in 15 s [1]_     failed          success       success
    forgot it         lost in lost_after failed in 30 s              failed in 30 s  success       success
    ================  =================  ==========================  ==============  ============  ============

    A record of another format is an error in place of failed or lost, and a damaged one in place of lost: the job may
    have succeeded.

    .. [1] If it may be requeued it is waited for: it may be about to run again. The record of a run that is
       known to have been followed by another is none.
    .. [2] Exit code 0, and the job script has not ruled out that the module had been signalled.
    .. [3] Failed where Slurm has ended the job by signals: CANCELLED, TIMEOUT, PREEMPTED, DEADLINE. Likewise where
       Slurm shows that a preemption had begun (PreemptTime), whatever the state.

    A record from before `teardown` counts once Slurm has ended the job, or does not know it.

    :param job: the job.
    :param module: the module it runs.
    :param patience: how long, and for what, it is waited for.
    :param sink: takes its output as it comes.
    :param say: told what becomes of it, a line each.
    :param secrets: values that must not be shown.
    :param trigger_log: where this process is a triggerer. What the job has written last is left to a worker then, see
        :meth:`JobRun.log_rest`.
    :param try_number: Airflow's number of the try that this process works for; 0 where tries have no numbers.
    """

    def __init__(
        self,
        job: Job,
        module: str,
        patience: WaitPolicy,
        sink: Sink,
        say: Callable[[str], None],
        secrets: Collection[str] = (),
        *,
        trigger_log: TriggerLog | None = None,
        try_number: int = 0,
    ) -> None:
        self._job = job
        self._endings = JobResultFactory(job, module, secrets)
        self._patience = patience
        self._say = say
        self._new_logs = partial(JobLogs, job.directory, sink, secrets, trigger_log=trigger_log)
        self._logs = self._new_logs()
        self._leaves_rest = trigger_log is not None
        self._is_stopped = False
        self._settles = _SETTLES[job.cluster.kind]
        self._sighting: JobStatus | None = None
        self._is_silent = False
        self._described = ""
        self._trouble = ""
        self._unreadable: UnreadableRecord | None = None
        self._concluding = ""
        self._lasted = 0.0
        self._unknown_before = job.directory.read_unknown_seconds()
        self._recorded_unknown = 0.0
        self._looked = time.monotonic()
        self._cancelled_at = -math.inf
        job.directory.check_own()
        self._lease = MonitorLease(job.directory, try_number, dead_after=max(_DEAD_AFTER, 4 * patience.look_every))
        self._lease.take()
        #: Whether this process follows the job; another one may have taken that over while this one was paused.
        self.is_holder = True

    def poll(self, view: StatusUpdate | None) -> JobResult | None:
        """Hand on what the job has written since the last look, and return how it ended if it has.

        While another process follows the job, this one does nothing and returns ``None``; see :attr:`is_holder`.

        :param view: what the watcher has seen since; ``None`` if nothing.
        """
        was_holder, self.is_holder = self.is_holder, self._lease.keep()
        if not self.is_holder:
            return None
        if not was_holder:  # the output was handed on by another process meanwhile
            self._logs = self._new_logs()
        if view is not None:
            self._take(view)
        rule = self._doubted(self._rule(self._read_record()))
        if not (self._leaves_rest and rule.what != _GOES_ON) and self._pump():
            return None  # first things first: there is more output than one look takes
        return rule.conclude() if self._has_lasted(rule) else None

    def stop(self) -> None:
        """Have no more output handed on: who took it is gone."""
        self._is_stopped = True
        self._logs.stop()

    def _pump(self) -> bool:
        """Hand on what the job has written, and tell whether there may be more."""
        pieces = 0
        while pieces < _MOST_PIECES and not self._is_stopped and self._logs.pump():
            pieces += 1
        return pieces == _MOST_PIECES

    @property
    def wants_poll(self) -> bool:
        """Tell whether Slurm's next answer is likely to end this."""
        return self._concluding in {_UNSURE, _FAILED, _LOST} and self._lasted < _POLL_AT_ONCE

    def _take(self, view: StatusUpdate) -> None:
        if view.status is None:
            if not self._is_silent:
                self._say(f"No answer about {self._job}, waiting for one: {view.silence}")
            self._is_silent = True
            return
        if self._is_silent:
            self._say(f"There is an answer about {self._job} again")
        self._is_silent = False
        self._sighting = view.status
        is_undecided = view.status.state in WAITING and not view.status.reason  # after each change of the job
        described = _described(self._job, view.status._replace(start=None))  # Slurm changes its estimate at any time
        if described != self._described and not (is_undecided and self._described):
            self._described = described
            self._say(_described(self._job, view.status))

    def _read_record(self) -> ExitRecord | None:
        self._unreadable = None
        try:
            record = self._job.directory.read_module_end()
        except UnreadableRecord as error:
            self._unreadable = error
            self._report_once(f"The exit record of {self._job} cannot be read, waiting: {error}")
            return None
        if record is not None and not record.is_torn_down and not self._has_ended:
            return None
        if record is None and not os.path.isdir(self._job.directory.path):
            self._report_once(f"The run directory of {self._job} is not there: {self._job.directory.path}")
        is_of_an_earlier_run = record and self._sighting and record.restart < (self._sighting.restarts or 0)
        return None if record is None or (is_of_an_earlier_run and not record.is_sure_success) else record

    def _report_once(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._say(trouble)

    def _rule(self, record: ExitRecord | None) -> _Rule:
        """Look up the table above."""
        state = self._sighting.state if self._sighting else None
        may_run_again = self._patience.requeue and (record is None or not record.is_final)
        if record is not None and record.is_success and not self._is_outweighed(record):
            return self._success(record, is_decided=record.is_sure_success or state in ENDED | {UNKNOWN_JOB.state})
        failed = _Rule(_FAILED, partial(self._failed, record))
        lost = _Rule(_LOST, self._lost, self._patience.lost_after, in_silence=False)
        if state in ENDED:
            if record is None and state == "COMPLETED":
                return lost
            if record is None and self._sighting == MISSING_ARRAY_TASK:
                return failed._replace(after=_FILES_GRACE, in_silence=False)
            if may_run_again and state in REQUEUEABLE:
                return failed._replace(after=self._settles, in_silence=False)
            return failed._replace(after=self._settles) if record is None and self._has_begun else failed
        if state == UNKNOWN_JOB.state:
            return failed._replace(after=_REASON_GRACE) if record else lost
        if record is None or may_run_again:
            return _Rule(_GOES_ON, self._gives_up_waiting)
        return failed._replace(after=_REASON_GRACE)

    def _doubted(self, rule: _Rule) -> _Rule:
        """Conclude no failure of a job whose record may say that it succeeded.

        A damaged one is no evidence where Slurm says itself that the job has failed.
        """
        error = self._unreadable
        if error is None or rule.what not in {_FAILED, _LOST}:
            return rule
        is_said_to_have_failed = rule.what == _FAILED and self._job.cluster.kind == "slurm"
        if error.version is None and is_said_to_have_failed:
            return rule
        return rule._replace(conclude=partial(self._unknown_end, error))

    def _success(self, record: ExitRecord, *, is_decided: bool) -> _Rule:
        if not is_decided:
            return _Rule(_UNSURE, partial(self._succeeded, record), _REASON_GRACE)
        after = 0.0 if self._has_all_of(record) else _FILES_GRACE
        if not record.is_torn_down:  # the one after `teardown` may be about to appear
            after = max(after, self._settles)
        return _Rule(_DONE, partial(self._succeeded, record), after)

    def _is_outweighed(self, record: ExitRecord) -> bool:
        """Tell whether Slurm contradicts a record of exit code 0 that may be due to a signal of Slurm."""
        if record.is_sure_success or self._sighting is None or self._sighting == MISSING_ARRAY_TASK:
            return False
        is_waiting_again = self._patience.requeue and self._sighting.state in WAITING
        return is_waiting_again or self._sighting.is_preempted or self._sighting.state in _ENDED_BY_SIGNALS

    def _has_lasted(self, rule: _Rule) -> bool:
        """Tell whether this has been so for as long as the rule wants; asked at every look."""
        now = time.monotonic()
        if rule.what != self._concluding:
            self._concluding, self._lasted = rule.what, self._lasted_before(rule)
        elif rule.in_silence or not self._is_silent:
            self._lasted += now - self._looked
        self._looked = now
        self._record_unknown(rule)
        return self._lasted >= rule.after

    def _lasted_before(self, rule: _Rule) -> float:
        """Return for how long earlier followers have seen the same, so that their end does not restart the clock."""
        if rule.what != _LOST:
            return 0.0
        lasted, self._unknown_before = self._unknown_before, 0.0
        return lasted

    def _record_unknown(self, rule: _Rule) -> None:
        """Record for how long Slurm has not known the job, or that it knows the job again."""
        directory = self._job.directory
        if rule.what == _LOST and self._lasted - self._recorded_unknown >= _RECORD_UNKNOWN_EVERY:
            directory.write_unknown_seconds(self._lasted)
            self._recorded_unknown = self._lasted
        elif rule.what != _LOST and self._sighting is not None and (self._unknown_before or self._recorded_unknown):
            directory.write_unknown_seconds(0.0)
            self._unknown_before = self._recorded_unknown = 0.0

    @property
    def _has_ended(self) -> bool:
        """Tell whether nothing of the job runs any more, as far as Slurm knows."""
        return self._sighting is not None and self._sighting.state in ENDED | {UNKNOWN_JOB.state}

    @property
    def _has_begun(self) -> bool:
        """Tell whether the job has a node or had one, so that there may be a record of its end."""
        return bool(self._sighting and self._sighting.node) or self._job.directory.read_start() is not None

    def _has_all_of(self, record: ExitRecord) -> bool:
        """Tell whether all that the job has written before its end has appeared here."""
        return self._has_output_of(record) and self._has_result_of(record)

    def _has_output_of(self, record: ExitRecord) -> bool:
        directory = self._job.directory
        return _size(directory.stdout) >= record.stdout and _size(directory.stderr) >= record.stderr

    def _has_result_of(self, record: ExitRecord) -> bool:
        return _size(self._job.directory.result) >= record.result

    # -- What can be concluded -----------------------------------------------------------------------------------------

    def _succeeded(self, record: ExitRecord) -> JobResult:
        self._finish_logs()
        if not self._has_output_of(record):
            self._say(f"The end of the output of {self._job} has not appeared here for {_FILES_GRACE:g} s")
        if not self._has_result_of(record):
            return self._endings.without_result(record)
        return self._endings.success(record)

    def _finish_logs(self) -> None:
        if self._leaves_rest:
            self._logs.settle()
        elif not self._is_stopped:
            self._logs.finish()

    def _unknown_end(self, error: UnreadableRecord) -> JobResult:
        self._finish_logs()
        return self._endings.unreadable(error)

    def _failed(self, record: ExitRecord | None) -> JobResult:
        sighting = self._sighting or UNKNOWN_JOB
        if record is None and sighting.exit_code == NOT_ITS_TURN:
            self._give_up()  # lest the other one runs on for nobody
        if record is not None and sighting.state not in ENDED:
            sighting = sighting._replace(state="CANCELLED" if record.asked else "FAILED")
        self._finish_logs()
        return self._endings.failure(sighting, record)

    def _lost(self) -> JobResult:
        self._finish_logs()
        self._give_up()
        state = self._sighting.state if self._sighting else ""
        return self._endings.lost(state, self._patience.lost_after)

    def _gives_up_waiting(self) -> JobResult | None:
        """Return the end of a job that waits in vain or for too long."""
        sighting = self._sighting
        if sighting is None or sighting.state not in WAITING:
            return None
        if self._job.directory.is_cancelled and time.monotonic() - self._cancelled_at >= _CANCEL_AGAIN:
            self._cancelled_at = time.monotonic()
            self._give_up()
        why = unsatisfiable_reason(sighting.reason, self._patience.fail_on_pending_reason, sighting.partition)
        if why:
            self._give_up()
            return self._endings.unsatisfiable(sighting, why)
        limit = self._patience.max_pending_time
        is_late = limit is not None and time.time() - self._job.submitted > limit
        if limit is not None and is_late and self._job.directory.read_start() is None:
            self._give_up()
            return self._endings.pending_too_long(sighting, limit)
        return None

    def _give_up(self) -> None:
        try:
            self._job.cancel(timeout=_GIVE_UP_TIMEOUT)
        except SlurmUnreachable as error:
            self._say(f"{self._job} was told to end by its run directory only: {error}")


def _described(job: Job, sighting: JobStatus) -> str:
    """Say in a line how a job stands; the same line for the same thing."""
    if not sighting.state:
        return f"Nobody knows {job} any more; waiting for its exit record"
    words = [f"{job} is {sighting.state}"]
    if sighting.state not in KNOWN:
        words.append(", whatever that is; it is taken for no end")
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
