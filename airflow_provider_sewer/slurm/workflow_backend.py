"""Run tasks of a workflow as Slurm jobs, without Airflow: each is an attempt that a ``--resume`` can take up."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.command import shown
from airflow_provider_sewer.core.environment import inherited
from airflow_provider_sewer.core.errors import ModuleTerminated, SewerError, SlurmSubmissionRejected, UnreadableRecord
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.execution.activation import left_to_interpreter
from airflow_provider_sewer.execution.job_order import RunIdentity
from airflow_provider_sewer.execution.module_runner import GRACE
from airflow_provider_sewer.execution.preflight import refuse_template
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.client import require_slurm
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_script import can_set, checked_variables
from airflow_provider_sewer.slurm.job_spec import JobSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_sewer.core.staleness import Decision
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.job_order import AheadSlot
    from airflow_provider_sewer.execution.output import Sink
    from airflow_provider_sewer.execution.task_runner import TaskRunner
    from airflow_provider_sewer.slurm.job import Job

#: Seconds in which a job that is not to run any more is cancelled; its run directory tells it to end in any case.
_CANCEL_TIMEOUT = 15.0


class WorkflowJobs:
    """How the tasks of a run become Slurm jobs.

    :param settings: what the jobs ask for and how they are watched, as far as a task does not say so itself.
    :param options: options of sbatch by their long names, for what neither a task nor ``settings`` gives.
    :param ahead: whether tasks are submitted before those before them have ended, where that can be.
    :param grace: seconds between SIGTERM and SIGKILL when a job is stopped.
    """

    def __init__(
        self,
        settings: SlurmSettings,
        *,
        options: Mapping[str, Any] = MappingProxyType({}),
        ahead: bool = False,
        grace: float = GRACE,
    ) -> None:
        self._settings = settings.with_fallback(DEFAULTS)._replace(cluster="slurm")
        self._options = options
        self._grace = grace
        self.ahead = ahead
        self.origin = RunIdentity("", "", "")

    @property
    def run_dir(self) -> str:
        """Return the folder of the jobs' files."""
        return os.path.abspath(os.path.expanduser(self._settings.run_dir or ""))

    @staticmethod
    def runs_on_slurm(task: Task) -> bool:
        """Tell whether a task becomes a job: each does that does not say otherwise."""
        return task.run_on != "local"

    def check(self, tasks: Iterable[Task]) -> None:
        """Look for what would go wrong before anything is submitted.

        :raises SewerError: when there is no Slurm, only Airflow knows what a job asks for, or a task's environment
            cannot be set in a job.
        """
        jobs = [task for task in tasks if self.runs_on_slurm(task)]
        if jobs:
            require_slurm("leave out --on slurm to run on this machine")
        for task in jobs:
            slurm = self._slurm_of(task)
            refuse_template(task, slurm.slurm, slurm.run_dir)
            try:
                checked_variables(task.settings.env)
            except SewerError as error:
                raise type(error)(f"task {task.name!r}: {error}", task.source) from None

    def not_ahead_reason(self, task: Task, before: Iterable[Task]) -> str | None:
        """Return why a task cannot be submitted before others have ended; ``None`` if it can.

        Of these, Slurm knows only whether they exit with 0: so nothing else must be wanted of them.

        :param before: the tasks before it that have not ended.
        """
        if not self.runs_on_slurm(task):
            return "it runs on this machine"
        if task.run_policy.run_when != "always":
            return f"whether it has to run (run_when={task.run_policy.run_when!r}) is known only then"
        if task.results:
            return f"{task.results[0]!r} is known only then"
        if "?" in (self._slurm_of(task).slurm.get("dependency") or ""):
            return "Slurm takes no afterok beside its own dependency, which is one of several"
        for other in before:
            if not self.runs_on_slurm(other):
                return f"{other.name!r} runs on this machine"
            if other.products:
                return f"the products of {other.name!r} are put in place only when its job has ended"
        return None

    def runner_of(self, task: Task, run: TaskRunner, turn: AheadSlot, say: Callable[[str], None]) -> SlurmTaskRunner:
        """Return an attempt at a task.

        :param run: what judges the task and makes its products whole.
        :param turn: its place in the run.
        :param say: told what becomes of its job, a line each.
        """
        return SlurmTaskRunner(run, self._planned(task, run.command()), turn, say)

    def cancel_latest(self, task: Task, say: Callable[[str], None]) -> None:
        """See to it that nothing runs of the job that an earlier run has left of a task.

        :param say: told what becomes of it.
        """
        JobRunner(self._planned(task, ""), _nowhere, say).cancel_latest(timeout=_CANCEL_TIMEOUT)

    def interpreter(self, task: Task) -> str | None:
        """Return the absolute path of the interpreter of a task's job, or a name, ``None`` too, that its node looks up.

        A name is looked up on the node where something decides there which interpreter it is: ``setup``, or a PATH that
        the job is given. So it is the one that Airflow's job runs. Elsewhere the name means the one found here.
        """
        python = task.settings.python
        is_path = python is not None and os.sep in python
        if not is_path and (self._slurm_of(task).slurm.get("setup") or "PATH" in _given(task)):
            return python
        return _located(python)

    def _slurm_of(self, task: Task) -> SlurmSettings:
        return task.slurm.with_fallback(self._settings).with_options(self._options)

    def _planned(self, task: Task, command: str) -> JobSpec:
        settings = task.settings
        env = _given(task)
        workflow, series, run = self.origin
        here = settings._replace(
            env=env,
            python=self.interpreter(task),
            workdir=os.path.abspath(os.path.expanduser(settings.workdir or "")),
        )
        return JobSpec(
            # A job that an earlier run has left is taken up if that run is resumed, and it is still the same command.
            instance=TaskInstance(workflow, series, task.name, -1, f"{run} {command}"),
            task=task.with_settings(here),
            slurm=self._slurm_of(task),
            secret_env={},
            grace=self._grace,
            active=left_to_interpreter(settings.env, settings.inherit_env),
        )


class SlurmTaskRunner:
    """One attempt at a task as a Slurm job: a :class:`~airflow_provider_sewer.execution.cluster_jobs.TaskRun`.

    :param run: what judges the task and makes its products whole.
    :param planned: the job.
    :param turn: its place in the run.
    :param say: told what becomes of the job, a line each.
    """

    def __init__(self, run: TaskRunner, planned: JobSpec, turn: AheadSlot, say: Callable[[str], None]) -> None:
        self._task_run = run
        self._planned = planned
        self._turn = turn
        self._say = say
        self._job_run: JobRunner | None = None
        self._stopped: bool | None = None

    def decision(self, ran_anew: Sequence[str] = (), ran_anew_otherwise: Sequence[str] = ()) -> tuple[Decision, Any]:
        """Say whether the task has to run, and the result it has left before if it has not."""
        return self._task_run.decision(ran_anew, ran_anew_otherwise)

    def command(self) -> str:
        """Return a digest of what the task runs."""
        return self._task_run.command()

    def run(self, sink: Sink, *, on_start: Callable[[str, str | None], None] | None = None) -> Any:
        """Take up its job or submit one, follow it to its end, put its products in place, and return its result.

        :param sink: takes its output as it comes.
        :param on_start: told the command line, secrets masked, and the working directory.
        :raises SlurmError: when the job cannot be submitted, or did not end well.
        :raises ModuleStopped: when it was stopped.
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
            return run.collect(run.follow(job))
        except BaseException as error:
            is_left = isinstance(error, UnreadableRecord)  # nothing is known of its job, which may have succeeded
            if self._job_run is not None and not is_left and (job is None or self._stopped is None):
                with suppress(SewerError):  # what has gone wrong first is what counts
                    self._job_run.cancel_latest(timeout=_CANCEL_TIMEOUT)
            if self._stopped is not None and isinstance(error, SewerError):
                raise ModuleTerminated(error.message.partition("\n")[0]) from None
            raise

    def stop(self, *, at_once: bool = False) -> None:
        """Have its job cancelled; from a signal handler or another thread.

        :param at_once: do not wait for the job's end either.
        """
        self._stopped = at_once or bool(self._stopped)
        if self._job_run is not None:
            self._job_run.stop(at_once=self._stopped)
        self._turn.abort()

    def _begun_ahead(self, sink: Sink) -> tuple[JobRunner, Job] | None:
        """Submit the job before its turn has come, to start when it does; ``None`` if that cannot be."""
        before = self._turn.jobs_before()
        if not before:
            return None
        try:
            begun = self._begun(_after(self._planned, before), sink)
        except SlurmSubmissionRejected as error:
            self._say(f"It waits for its turn, for it cannot be submitted ahead: {error}")
            return None
        self._say(f"It is submitted ahead, and starts when {_jobs(before)} succeeded")
        return begun

    def _begun(self, planned: JobSpec, sink: Sink) -> tuple[JobRunner, Job]:
        run = self._new_job_run(planned, sink)
        if self._turn.comes_after_new:
            run.abandon_previous()
        job = run.submit_and_wait()
        self._turn.record_job(job.ref.id, is_taken_up=run.has_reattached)
        if not run.has_reattached:
            self._say(f"{job}; its run directory is {job.directory.path}")
        return run, job

    def _new_job_run(self, planned: JobSpec, sink: Sink) -> JobRunner:
        run = self._job_run = JobRunner(planned, sink, self._say, task_run=self._task_run)
        if self._stopped is not None:
            run.stop(at_once=self._stopped)
        return run

    def _command_line(self) -> str:
        call = self._task_run.call(None)
        return shown([self._planned.task.settings.python or "python", *call.argv], self._planned.secrets(call))


def _after(planned: JobSpec, jobs: Sequence[str]) -> JobSpec:
    """Return a job that begins only after others have succeeded, besides what it waits for anyway."""
    own = planned.slurm.slurm.get("dependency")
    dependency = ",".join(filter(None, [own, f"afterok:{':'.join(jobs)}"]))
    return planned._replace(slurm=planned.slurm._replace(slurm={**planned.slurm.slurm, "dependency": dependency}))


def _jobs(ids: Sequence[str]) -> str:
    return f"job {ids[0]} has" if len(ids) == 1 else f"jobs {', '.join(ids)} have"


def _given(task: Task) -> dict[str, str]:
    """Return the variables that a task's job is given."""
    inherit, env = task.settings.inherit_env or False, task.settings.env
    return {**{name: value for name, value in inherited(inherit).items() if can_set(name)}, **env}


def _located(python: str | None) -> str | None:
    """Return the path of the interpreter that a bare name means here; on a node it may mean another one."""
    if python is not None and os.sep in python:
        return os.path.abspath(os.path.expanduser(python))
    found = next(filter(None, map(shutil.which, ["python", "python3"] if python is None else [python])), None)
    return os.path.abspath(found) if found else python


def _nowhere(*_: object) -> None:
    """Take output that nobody wants."""
