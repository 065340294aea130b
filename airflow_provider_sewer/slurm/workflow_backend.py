"""Backend that runs a workflow's tasks as Slurm jobs without Airflow; ``--resume`` can reattach to each attempt."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.command import shown_call
from airflow_provider_sewer.core.environment import inherited
from airflow_provider_sewer.core.errors import (
    ModuleTerminated,
    SewerError,
    SlurmError,
    SlurmSubmissionRejected,
    UnreadableRecord,
)
from airflow_provider_sewer.core.retry_requests import has_extra_tries, reject_missing_amounts
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.execution.activation import interpreter_variables
from airflow_provider_sewer.execution.job_messages import WarningLine
from airflow_provider_sewer.execution.job_order import RunIdentity
from airflow_provider_sewer.execution.preflight import reject_template
from airflow_provider_sewer.execution.process import GRACE
from airflow_provider_sewer.execution.task_usage import TaskUsage
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.client import require_configuration, require_slurm
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_script import can_set, checked_variables
from airflow_provider_sewer.slurm.job_spec import JobSpec
from airflow_provider_sewer.slurm.job_usage import finished_usage
from airflow_provider_sewer.slurm.requested_resources import request_of
from airflow_provider_sewer.slurm.submission import CONTROLLER_TIMEOUT, submitted_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.cluster_jobs import Try
    from airflow_provider_sewer.execution.job_order import AheadSlot
    from airflow_provider_sewer.execution.output import Sink
    from airflow_provider_sewer.execution.task_runner import TaskRunner
    from airflow_provider_sewer.slurm.job import Job


class WorkflowJobs:
    """Converts the tasks of a run to Slurm jobs.

    :param settings: settings of the jobs and of their monitoring, for fields that a task leaves open.
    :param options: options of sbatch by their long names, for those that neither a task nor ``settings`` gives.
    :param ahead: whether tasks are submitted before their predecessors have ended, where possible.
    :param grace: seconds between SIGTERM and SIGKILL when a job is stopped.
    :param controller_timeout: seconds that a submission waits for a controller that does not answer, unless the
        settings have ``max_pending_time``.
    :param retries: how often a failed task is run again, with another job.
    """

    def __init__(
        self,
        settings: SlurmSettings,
        *,
        options: Mapping[str, Any] = MappingProxyType({}),
        ahead: bool = False,
        grace: float = GRACE,
        controller_timeout: float = CONTROLLER_TIMEOUT,
        retries: int = 0,
    ) -> None:
        self._settings = settings.with_fallback(DEFAULTS)._replace(cluster="slurm")
        self._options = options
        self._grace = grace
        self._controller_timeout = controller_timeout
        self._retries = retries
        self.ahead = ahead
        self.origin = RunIdentity("", "", "")

    @property
    def run_dir(self) -> str:
        """Return the folder of the jobs' files."""
        return os.path.abspath(os.path.expanduser(self._settings.run_dir or ""))

    @staticmethod
    def runs_on_slurm(task: Task) -> bool:
        """Return whether a task becomes a job, which is the default."""
        return task.run_on != "local"

    def check(self, tasks: Iterable[Task]) -> None:
        """Validate all tasks before any submission.

        :raises SewerError: when there is no Slurm or no configuration of it, only Airflow knows a job's settings, a
            task's environment cannot be set in a job, or a retry cannot request more.
        """
        jobs = [task for task in tasks if self.runs_on_slurm(task)]
        if jobs:
            require_slurm("leave out --on slurm to run on this machine")
            require_configuration()
        for task in jobs:
            slurm = self._slurm_of(task)
            reject_template(task, slurm.slurm, slurm.run_dir)
            try:
                reject_missing_amounts(slurm.retry_with, slurm.slurm)
                checked_variables(task.settings.env)
            except SewerError as error:
                raise type(error)(f"task {task.name!r}: {error}", task.source) from None

    def not_ahead_reason(self, task: Task, before: Iterable[Task]) -> str | None:
        """Return why a task cannot be submitted before others have ended; ``None`` if it can.

        Slurm only knows whether the predecessors exit with 0: so the task must depend on nothing else of them.

        :param before: its predecessors that have not ended.
        """
        if not self.runs_on_slurm(task):
            return "it runs on this machine"
        if task.run_policy.run_when != "always":
            return f"whether it has to run (run_when={task.run_policy.run_when!r}) is known only then"
        if task.results:
            return f"{task.results[0]!r} is known only then"
        if "?" in (self._slurm_of(task).slurm.get("dependency") or ""):
            return "Slurm does not combine afterok with a dependency that has alternatives ('?')"
        for other in before:
            if not self.runs_on_slurm(other):
                return f"{other.name!r} runs on this machine"
            if self._retries or has_extra_tries(self._slurm_of(other).retry_with):
                return f"a retry of {other.name!r} is another job than the one that it would wait for"
            if other.products:
                return f"the products of {other.name!r} are committed only after its job has ended"
        return None

    def runner_of(
        self, task: Task, run: TaskRunner, turn: AheadSlot, notify: Callable[[str], None], try_: Try
    ) -> SlurmTaskRunner:
        """Return an attempt at a task.

        :param run: decides about the task and commits its products.
        :param turn: its slot in the run.
        :param notify: takes log lines about its job.
        """
        planned = self._planned(task, run.command())
        planned = planned._replace(is_first_try=try_.number == 1, is_last_try=try_.is_last)
        return SlurmTaskRunner(run, planned, turn, notify)

    def cancel_latest(self, task: Task, notify: Callable[[str], None]) -> None:
        """Cancel the job that an earlier run has submitted for a task.

        :param notify: takes log lines about it.
        """
        JobRunner(self._planned(task, ""), _nowhere, notify).cancel_latest()

    def interpreter(self, task: Task) -> str | None:
        """Return the interpreter of a task's job: an absolute path, or a name, ``None`` too, that its node looks up.

        The node looks a name up where ``setup``, or a PATH among the job's variables, decides which interpreter it is
        there. So the job runs the same one as Airflow's job. Elsewhere the name means the one found here.
        """
        python = task.settings.python
        is_path = python is not None and os.sep in python
        if not is_path and (self._slurm_of(task).slurm.get("setup") or "PATH" in _variables_of(task)):
            return python
        return _resolved(python)

    def _slurm_of(self, task: Task) -> SlurmSettings:
        return task.slurm.with_fallback(self._settings).with_options(self._options)

    def _planned(self, task: Task, command: str) -> JobSpec:
        settings = task.settings
        env = _variables_of(task)
        workflow, series, run = self.origin
        here = settings._replace(
            env=env,
            python=self.interpreter(task),
            workdir=os.path.abspath(os.path.expanduser(settings.workdir or "")),
        )
        return JobSpec(
            # If that run is resumed with the same command, it reattaches to the job of an earlier run.
            instance=TaskInstance(workflow, series, task.name, -1, f"{run} {command}"),
            task=task.with_settings(here),
            slurm=self._slurm_of(task),
            secret_env={},
            other_secrets=tuple(task.secrets),
            grace=self._grace,
            controller_timeout=self._controller_timeout,
            active=interpreter_variables(settings.env, settings.inherit_env),
        )


class SlurmTaskRunner:
    """One attempt at a task as a Slurm job: a :class:`~airflow_provider_sewer.execution.cluster_jobs.TaskRun`.

    :param run: decides about the task and commits its products.
    :param planned: the job.
    :param turn: its slot in the run.
    :param notify: takes log lines about the job.
    """

    def __init__(self, run: TaskRunner, planned: JobSpec, turn: AheadSlot, notify: Callable[[str], None]) -> None:
        self._task_run = run
        self._planned = planned
        self._turn = turn
        self._notify = notify
        self._job_run: JobRunner | None = None
        self._job: Job | None = None
        self._stopped: bool | None = None

    def decision(self, reran: Sequence[str] = (), reran_otherwise: Sequence[str] = ()) -> tuple[Decision, Any]:
        """Return the decision whether to run the task, and the result of its previous run if it is skipped."""
        return self._task_run.decision(reran, reran_otherwise)

    def command(self) -> str:
        """Return a digest of the task's command."""
        return self._task_run.command()

    def run(self, sink: Sink, *, on_start: Callable[[str, str | None], None] | None = None) -> Any:
        """Reattach to its job or submit one, monitor it, commit its products, and return its result.

        :param sink: takes its output while it runs.
        :param on_start: called with the command line, secrets masked, and the working directory.
        :raises SlurmError: when the job cannot be submitted, or has failed.
        :raises ModuleTerminated: when it was stopped.
        :raises SewerError: as :meth:`~airflow_provider_sewer.slurm.job_runner.JobRunner.collect` does.
        """
        if on_start:
            on_start(self._command_line(), self._planned.task.settings.workdir)
        job = None
        try:
            run, job = self._begun_ahead(sink) or (None, None)
            if not self._turn.wait():
                self.stop()
            if run is None or job is None:
                run, job = self._begun(self._planned, sink)
            while True:
                self._job = job
                ended = run.follow(job)
                try:
                    return run.collect(ended)
                except SlurmError as error:
                    if self._stopped is not None or not run.has_extra_try(ended, error):
                        raise
                    self._notify(WarningLine(error.message.partition("\n")[0]))
                job = None  # from here an error cancels the next attempt
                job = self._submitted(run)
        except BaseException as error:
            is_left = isinstance(error, UnreadableRecord)  # its job may have succeeded
            if self._job_run is not None and not is_left and (job is None or self._stopped is None):
                with suppress(SewerError):  # the first error counts
                    self._job_run.cancel_latest()
            if self._stopped is not None and isinstance(error, SewerError):
                raise ModuleTerminated(error.message.partition("\n")[0]) from None
            raise

    @property
    def usage(self) -> TaskUsage:
        """Return the usage of its job, once it has ended, and its request."""
        if self._job is None:
            return TaskUsage(requested=request_of(self._planned.slurm.slurm))
        ref, saved = self._job.ref, self._job.directory.read_usage()
        usage = saved if saved and saved.exit_class else finished_usage(self._job.directory, "")
        return TaskUsage(
            usage.used, usage.requested, ref.id, ref.name, ref.directory, usage.started, usage.node, usage.exit_class
        )

    def stop(self, *, at_once: bool = False) -> None:
        """Cancel its job; from a signal handler or another thread.

        :param at_once: do not wait for the job's end either.
        """
        self._stopped = at_once or bool(self._stopped)
        if self._job_run is not None:
            self._job_run.stop(at_once=self._stopped)
        self._turn.abort()

    def _begun_ahead(self, sink: Sink) -> tuple[JobRunner, Job] | None:
        """Submit the job ahead of its turn, to start when that comes; ``None`` if that is not possible."""
        before = self._turn.jobs_before()
        if not before:
            return None
        try:
            begun = self._begun(_after(self._planned, before), sink)
        except SlurmSubmissionRejected as error:
            self._notify(WarningLine(f"Not submitted ahead; waiting for its turn: {error}"))
            return None
        self._notify(f"Submitted ahead; starts when {_jobs(before)} succeeded")
        return begun

    def _begun(self, planned: JobSpec, sink: Sink) -> tuple[JobRunner, Job]:
        run = self._new_job_run(planned, sink)
        if self._turn.has_rerun_upstream and planned.is_first_try:
            run.abandon_previous()
        return run, self._submitted(run)

    def _submitted(self, run: JobRunner) -> Job:
        job = run.submit_and_wait()
        self._turn.record_job(job.ref.id, is_taken_up=run.has_reattached)
        if not run.has_reattached:
            self._notify(submitted_message(job))
        return job

    def _new_job_run(self, planned: JobSpec, sink: Sink) -> JobRunner:
        run = self._job_run = JobRunner(planned, sink, self._notify, task_run=self._task_run)
        if self._stopped is not None:
            run.stop(at_once=self._stopped)
        return run

    def _command_line(self) -> str:
        call = self._task_run.call(None)
        return shown_call([self._planned.task.settings.python or "python"], call, self._planned.secrets(call))


def _after(planned: JobSpec, jobs: Sequence[str]) -> JobSpec:
    """Return a job that also begins only after others have succeeded."""
    own = planned.slurm.slurm.get("dependency")
    dependency = ",".join(filter(None, [own, f"afterok:{':'.join(jobs)}"]))
    return planned._replace(slurm=planned.slurm._replace(slurm={**planned.slurm.slurm, "dependency": dependency}))


def _jobs(ids: Sequence[str]) -> str:
    return f"job {ids[0]} has" if len(ids) == 1 else f"jobs {', '.join(ids)} have"


def _variables_of(task: Task) -> dict[str, str]:
    """Return the variables of a task's job."""
    inherit, env = task.settings.inherit_env or False, task.settings.env
    return {**{name: value for name, value in inherited(inherit).items() if can_set(name)}, **env}


def _resolved(python: str | None) -> str | None:
    """Return the path that a bare interpreter name has here; on a node it may have another one."""
    if python is not None and os.sep in python:
        return os.path.abspath(os.path.expanduser(python))
    found = next(filter(None, map(shutil.which, ["python", "python3"] if python is None else [python])), None)
    return os.path.abspath(found) if found else python


def _nowhere(*_: object) -> None:
    """Discard output."""
