"""Monitor of one job from its submission to its end.

Three sources are read in a fixed order: the record that the job script writes, the controller, and accounting. Only
the record proves a success. While Slurm does not answer, the monitor waits.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.errors import UnreadableRecord
from airflow_provider_sewer.execution.job_messages import WarningLine, clock
from airflow_provider_sewer.slurm.backend import MISSING_ARRAY_TASK, UNKNOWN_JOB, JobStatus
from airflow_provider_sewer.slurm.cancellation import RepeatedCancellation, cancel_job
from airflow_provider_sewer.slurm.job_result import NOT_ITS_TURN, JobResultFactory
from airflow_provider_sewer.slurm.log_tailer import JobLogs
from airflow_provider_sewer.slurm.monitor_lease import MonitorLease
from airflow_provider_sewer.slurm.states import ENDED, KNOWN, REQUEUEABLE, WAITING, unsatisfiable_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_sewer.execution.output import Sink
    from airflow_provider_sewer.slurm.job import Job
    from airflow_provider_sewer.slurm.job_records import ExitRecord
    from airflow_provider_sewer.slurm.job_result import JobResult
    from airflow_provider_sewer.slurm.log_tailer import TriggerLog
    from airflow_provider_sewer.slurm.status_poller import StatusUpdate

#: Seconds until the files of an ended job are complete here: network file systems cache.
_FILES_GRACE = 60.0
#: Seconds to wait for Slurm's reason when the record shows that the job failed.
_REASON_GRACE = 30.0
#: States of a job that Slurm has ended by signals. They outweigh an exit code of 0 where the job script has not
#: ruled out that its module had been signalled.
_ENDED_BY_SIGNALS = frozenset({"CANCELLED", "TIMEOUT", "PREEMPTED", "DEADLINE"})
#: Seconds to wait after Slurm reports an end: the record may appear here that late, and so may a requeued job in the
#: queue. On this machine both are seen at once.
_SETTLING_TIME = {"slurm": 15.0, "local": 0.0}
#: Seconds for which a pending conclusion makes the poller query Slurm at once.
_POLL_AT_ONCE = 60.0
#: Seconds that count between two polls, at least: a process that was paused knows only Slurm's answer from before.
_LONGEST_STEP = 5.0
#: Seconds without a poll after which a monitor is considered dead, at least.
_DEAD_AFTER = 120.0
#: Seconds between two records of how long Slurm has not known the job.
_RECORD_UNKNOWN_EVERY = 5.0
_GOES_ON, _DONE, _UNSURE, _FAILED, _LOST = "goes on", "done", "unsure", "failed", "lost"
#: Pieces of output, of 32 KiB each, that one poll forwards at most, so that no job delays another.
_MOST_PIECES = 1024


class WaitPolicy(NamedTuple):
    """Limits on waiting for a job.

    :param max_pending_time: seconds that the job may wait for its start.
    :param fail_on_pending_reason: pending reasons that cancel the job; the built-in ones if ``None``.
    :param lost_after: seconds after which a job that Slurm does not know is a failure.
    :param requeue: whether Slurm may start it again.
    :param look_every: seconds between two polls of the job, at most.
    """

    max_pending_time: float | None
    fail_on_pending_reason: tuple[str, ...] | None
    lost_after: float
    requeue: bool
    poll_every: float = 0.0


class _Rule(NamedTuple):
    """Conclusion from the present state of a job.

    :param conclusion: one of the five constants above.
    :param conclude: returns the result.
    :param after: seconds for which every poll must give this conclusion.
    :param in_silence: whether time counts in which Slurm does not answer.
    """

    conclusion: str
    conclude: Callable[[], JobResult | None]
    after: float = 0.0
    in_silence: bool = True


class JobMonitor:
    """Monitor of one job, poll by poll.

    The conclusion depends on the job's own record and on Slurm's state of the job:

    ================  =================  ==========================  ==============  ============  ============
    Slurm             no record          asked to end                failed          0 [2]_        success
    ================  =================  ==========================  ==============  ============  ============
    has not answered  waits              failed in 30 s [1]_         failed in 30 s  in 30 s       success
    has it waiting    limits exceeded?   failed in 30 s [1]_         failed in 30 s  in 30 s [1]_  success
    has it running    waits              failed in 30 s [1]_         failed in 30 s  in 30 s       success
    has it failed     failed in 15 s     failed, or in 15 s [1]_     failed          success [3]_  success
    COMPLETED         lost in lost_after failed                      failed          success       success
    not in its array  cancelled in 60 s  failed, or in 15 s [1]_     failed          success       success
    forgot it         lost in lost_after failed in 30 s              failed in 30 s  success       success
    ================  =================  ==========================  ==============  ============  ============

    A record of another format raises an error in place of failed or lost, and a damaged one in place of lost: the job
    may have succeeded.

    .. [1] If it may be requeued, the monitor waits: it may be about to run again. The record of a run counts as
       missing once another run has followed it.
    .. [2] Exit code 0, and the job script has not ruled out that the module had been signalled.
    .. [3] Failed where Slurm has ended the job by signals: CANCELLED, TIMEOUT, PREEMPTED, DEADLINE. Likewise in any
       state where Slurm shows that a preemption had begun (PreemptTime).

    A record from before `teardown` counts once Slurm has ended the job, or does not know it.

    :param job: the job.
    :param module: the module it runs.
    :param wait_policy: limits on waiting for it.
    :param sink: takes its output while it runs.
    :param notify: takes log lines about it.
    :param secrets: values to mask.
    :param trigger_log: log of the triggerer, if this process is one. A worker then logs the last output of the job, see
        :meth:`JobRunner.log_rest`.
    :param try_number: Airflow's number of the try that this process works for; 0 where tries have no numbers.
    """

    def __init__(
        self,
        job: Job,
        module: str,
        wait_policy: WaitPolicy,
        sink: Sink,
        notify: Callable[[str], None],
        secrets: Collection[str] = (),
        *,
        trigger_log: TriggerLog | None = None,
        try_number: int = 0,
    ) -> None:
        self._job = job
        self._results = JobResultFactory(job, module, secrets)
        self._wait_policy = wait_policy
        self._notify = notify
        self._new_logs = partial(JobLogs, job.directory, sink, secrets, trigger_log=trigger_log)
        self._logs = self._new_logs()
        self._leaves_rest_to_worker = trigger_log is not None
        self._is_stopped = False
        self._settling_time = _SETTLING_TIME[job.cluster.kind]
        self._status: JobStatus | None = None
        self._is_silent = False
        self._described = ""
        self._trouble = ""
        self._unreadable: UnreadableRecord | None = None
        self._concluding = ""
        self._lasted = 0.0
        self._unknown_before = job.directory.read_unknown_seconds()
        self._recorded_unknown = 0.0
        self._polled_at = time.monotonic()
        self._cancellation = RepeatedCancellation(job, notify)
        job.directory.check_own()
        self._lease = MonitorLease(job.directory, try_number, dead_after=max(_DEAD_AFTER, 4 * wait_policy.poll_every))
        self._lease.take()
        #: Whether this process monitors the job; another process may have replaced it while it was paused.
        self.is_holder = True

    def poll(self, update: StatusUpdate | None) -> JobResult | None:
        """Forward the job's output since the last poll, and return the job result if it has ended.

        While another process monitors the job, this one does nothing and returns ``None``; see :attr:`is_holder`.

        :param update: the poller's latest status update; ``None`` if there is none.
        """
        was_holder, self.is_holder = self.is_holder, self._lease.keep()
        if not self.is_holder:
            return None
        if not was_holder:  # meanwhile another process forwarded the output
            self._logs = self._new_logs()
        self._cancellation.log()
        if update is not None:
            self._apply(update)
        rule = self._with_unreadable_record(self._rule(self._read_record()))
        if not (self._leaves_rest_to_worker and rule.conclusion != _GOES_ON) and self._pump():
            return None  # output first: there is more than one poll forwards
        return rule.conclude() if self._has_lasted(rule) else None

    def cancel(self) -> None:
        """Have the job cancelled, without waiting for the controller."""
        self._cancellation.cancel_if_due()

    def stop(self) -> None:
        """Stop forwarding output: its receiver is gone."""
        self._is_stopped = True
        self._logs.stop()

    def _pump(self) -> bool:
        """Forward the job's output, and return whether there may be more."""
        pieces = 0
        while pieces < _MOST_PIECES and not self._is_stopped and self._logs.pump():
            pieces += 1
        return pieces == _MOST_PIECES

    @property
    def wants_poll(self) -> bool:
        """Return whether Slurm's next answer is likely to conclude the monitoring."""
        return self._concluding in {_UNSURE, _FAILED, _LOST} and self._lasted < _POLL_AT_ONCE

    def _apply(self, update: StatusUpdate) -> None:
        if update.status is None:
            if not self._is_silent:
                self._notify(
                    WarningLine(f"No answer from Slurm about {self._job}; waiting until it answers: {update.silence}")
                )
            self._is_silent = True
            return
        if self._is_silent:
            self._notify(f"Slurm answers again about {self._job}")
        self._is_silent = False
        self._status = update.status
        is_undecided = update.status.state in WAITING and not update.status.reason  # after each change of the job
        described = _status_line(
            self._job, update.status._replace(start=None), self._wait_policy
        )  # Slurm changes its estimate at any time
        if described != self._described and not (is_undecided and self._described):
            self._described = described
            self._notify(_status_line(self._job, update.status, self._wait_policy))

    def _read_record(self) -> ExitRecord | None:
        self._unreadable = None
        try:
            record = self._job.directory.read_module_end()
        except UnreadableRecord as error:
            self._unreadable = error
            self._report_once(f"Cannot read the exit record of {self._job}; waiting: {error}")
            return None
        if record is not None and not record.is_torn_down and not self._has_ended:
            return None
        if record is None and not os.path.isdir(self._job.directory.path):
            self._report_once(f"Job directory of {self._job} is missing: {self._job.directory.path}")
        is_of_an_earlier_run = record and self._status and record.restart < (self._status.restarts or 0)
        return None if record is None or (is_of_an_earlier_run and not record.is_sure_success) else record

    def _report_once(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._notify(WarningLine(trouble))

    def _rule(self, record: ExitRecord | None) -> _Rule:
        """Look up the table above."""
        state = self._status.state if self._status else None
        may_run_again = self._wait_policy.requeue and (record is None or not record.is_final)
        if record is not None and record.is_success and not self._is_outweighed(record):
            return self._success(record, is_decided=record.is_sure_success or state in ENDED | {UNKNOWN_JOB.state})
        failed = _Rule(_FAILED, partial(self._failed, record))
        lost = _Rule(_LOST, self._lost, self._wait_policy.lost_after, in_silence=False)
        if state in ENDED:
            if record is None and state == "COMPLETED":
                return lost
            if record is None and self._status == MISSING_ARRAY_TASK:
                return failed._replace(after=_FILES_GRACE, in_silence=False)
            if may_run_again and state in REQUEUEABLE:
                return failed._replace(after=self._settling_time, in_silence=False)
            return failed._replace(after=self._settling_time) if record is None and self._has_begun else failed
        if state == UNKNOWN_JOB.state:
            return failed._replace(after=_REASON_GRACE) if record else lost
        if record is None or may_run_again:
            return _Rule(_GOES_ON, self._check_pending)
        return failed._replace(after=_REASON_GRACE)

    def _with_unreadable_record(self, rule: _Rule) -> _Rule:
        """Conclude no failure while the record may be one of a success.

        A damaged record is no evidence where Slurm itself reports a failure.
        """
        error = self._unreadable
        if error is None or rule.conclusion not in {_FAILED, _LOST}:
            return rule
        is_reported_failed = rule.conclusion == _FAILED and self._job.cluster.kind == "slurm"
        if error.version is None and is_reported_failed:
            return rule
        return rule._replace(conclude=partial(self._unknown_end, error))

    def _success(self, record: ExitRecord, *, is_decided: bool) -> _Rule:
        if not is_decided:
            return _Rule(_UNSURE, partial(self._succeeded, record), _REASON_GRACE)
        after = 0.0 if self._has_all_of(record) else _FILES_GRACE
        if not record.is_torn_down:  # the one after `teardown` may be about to appear
            after = max(after, self._settling_time)
        return _Rule(_DONE, partial(self._succeeded, record), after)

    def _is_outweighed(self, record: ExitRecord) -> bool:
        """Return whether Slurm contradicts a record of exit code 0 that may be due to a signal of Slurm."""
        if record.is_sure_success or self._status is None or self._status == MISSING_ARRAY_TASK:
            return False
        is_waiting_again = self._wait_policy.requeue and self._status.state in WAITING
        return is_waiting_again or self._status.is_preempted or self._status.state in _ENDED_BY_SIGNALS

    def _has_lasted(self, rule: _Rule) -> bool:
        """Return whether every poll has given this conclusion for as long as the rule requires."""
        now = time.monotonic()
        if rule.conclusion != self._concluding:
            self._concluding, self._lasted = rule.conclusion, self._lasted_before(rule)
        elif rule.in_silence or not self._is_silent:
            self._lasted += min(now - self._polled_at, max(self._wait_policy.poll_every, _LONGEST_STEP))
        self._polled_at = now
        self._record_unknown(rule)
        return self._lasted >= rule.after

    def _lasted_before(self, rule: _Rule) -> float:
        """Return for how long earlier monitors have seen the same, so that their end does not restart the clock."""
        if rule.conclusion != _LOST:
            return 0.0
        lasted, self._unknown_before = self._unknown_before, 0.0
        return lasted

    def _record_unknown(self, rule: _Rule) -> None:
        """Record for how long Slurm has not known the job, or that it knows the job again."""
        directory = self._job.directory
        if rule.conclusion == _LOST and self._lasted - self._recorded_unknown >= _RECORD_UNKNOWN_EVERY:
            directory.write_unknown_seconds(self._lasted)
            self._recorded_unknown = self._lasted
        elif rule.conclusion != _LOST and self._status is not None and (self._unknown_before or self._recorded_unknown):
            directory.write_unknown_seconds(0.0)
            self._unknown_before = self._recorded_unknown = 0.0

    @property
    def _has_ended(self) -> bool:
        """Return whether Slurm shows no running process of the job."""
        return self._status is not None and self._status.state in ENDED | {UNKNOWN_JOB.state}

    @property
    def _has_begun(self) -> bool:
        """Return whether the job has or had a node, so that there may be a record of its end."""
        return bool(self._status and self._status.node) or self._job.directory.read_start() is not None

    def _has_all_of(self, record: ExitRecord) -> bool:
        """Return whether all output and the result of the job have appeared here."""
        return self._has_output_of(record) and self._has_result_of(record)

    def _has_output_of(self, record: ExitRecord) -> bool:
        directory = self._job.directory
        return _size(directory.stdout) >= record.stdout and _size(directory.stderr) >= record.stderr

    def _has_result_of(self, record: ExitRecord) -> bool:
        return _size(self._job.directory.result) >= record.result

    # -- Conclusions ---------------------------------------------------------------------------------------------------

    def _succeeded(self, record: ExitRecord) -> JobResult:
        self._finish_logs()
        if not self._has_output_of(record):
            self._notify(WarningLine(f"The last output of {self._job} has not appeared here for {_FILES_GRACE:g} s"))
        if not self._has_result_of(record):
            return self._results.without_result(record)
        return self._results.success(record)

    def _finish_logs(self) -> None:
        if self._leaves_rest_to_worker:
            self._logs.settle()
        elif not self._is_stopped:
            self._logs.finish()

    def _unknown_end(self, error: UnreadableRecord) -> JobResult:
        self._finish_logs()
        return self._results.unreadable(error)

    def _failed(self, record: ExitRecord | None) -> JobResult:
        status = self._status or UNKNOWN_JOB
        if record is None and status.exit_code == NOT_ITS_TURN:
            cancel_job(self._job, self._notify)  # otherwise the other job would run on unmonitored
        if record is not None and status.state not in ENDED:
            status = status._replace(state="CANCELLED" if record.asked else "FAILED")
        self._finish_logs()
        return self._results.failure(status, record)

    def _lost(self) -> JobResult:
        self._finish_logs()
        cancel_job(self._job, self._notify)
        state = self._status.state if self._status else ""
        return self._results.lost(state, self._wait_policy.lost_after)

    def _check_pending(self) -> JobResult | None:
        """Return the end of a job that waits for an unsatisfiable reason or for too long."""
        status = self._status
        if status is None or status.state not in WAITING:
            return None
        if self._job.directory.is_cancelled:
            self._cancellation.cancel_if_due()
        unsatisfiable = unsatisfiable_reason(status.reason, self._wait_policy.fail_on_pending_reason, status.partition)
        if unsatisfiable:
            cancel_job(self._job, self._notify)
            return self._results.unsatisfiable(status, unsatisfiable)
        limit = self._wait_policy.max_pending_time
        is_late = limit is not None and time.time() - self._job.submitted > limit
        if limit is not None and is_late and self._job.directory.read_start() is None:
            cancel_job(self._job, self._notify)
            return self._results.pending_too_long(status, limit)
        return None


def _status_line(job: Job, status: JobStatus, policy: WaitPolicy) -> str:
    """Return a log line about a job's status; the same line for the same status."""
    if not status.state:
        known = "no longer known to slurmctld or slurmdbd" if job.cluster.kind == "slurm" else "no longer known"
        return WarningLine(f"{job} is {known}; waiting up to {policy.lost_after:g} s for its exit record (lost_after)")
    words = [f"{job} is {status.state}" if status.state in KNOWN else f"{job} has unknown state {status.state}"]
    if status.state not in KNOWN:
        words.append("; treated as still running")
    if status.restarts:
        words.append(f", restarted {status.restarts} times" if status.restarts > 1 else ", restarted once")
    if status.state in WAITING:
        words.append(f", waiting for {status.reason}" if status.reason else "")
        if status.start:
            words.append(f"; expected to start at {clock(status.start)}")
    elif status.node:
        words.append(f" on {status.node}")
    line = "".join(words)
    return line if status.state in KNOWN else WarningLine(line)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
