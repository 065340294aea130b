"""Run a Python module as a Slurm job, as an Airflow task."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout, TaskDeferralError, TaskDeferralTimeout

from airflow_provider_sewer.core.environment import inherited
from airflow_provider_sewer.core.errors import (
    InvalidTask,
    SlurmJobFailed,
    SlurmJobReleased,
    SlurmSubmissionRejected,
    SlurmUnsatisfiable,
    UnreadableRecord,
    UntrustedPath,
)
from airflow_provider_sewer.core.formats import NOTED_JOB
from airflow_provider_sewer.core.serialization import slurm_to_data
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.execution.activation import left_to_interpreter
from airflow_provider_sewer.execution.log_lines import line_logger
from airflow_provider_sewer.execution.task_log import log_output
from airflow_provider_sewer.execution.task_runner import TaskRunner
from airflow_provider_sewer.hooks.task_state import TaskState, UserRequest, read_task_state
from airflow_provider_sewer.links.slurm import SlurmJobLink
from airflow_provider_sewer.operators.dag_test_signals import interruptible
from airflow_provider_sewer.operators.module import PythonModuleOperator, seconds, supervisor
from airflow_provider_sewer.operators.overlapping_runs import claim_temporary, warn_of_other_runs
from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.job import Job, cancel, has_said_how_it_ended
from airflow_provider_sewer.slurm.job_directory import JobDirectory, checked_run_dir
from airflow_provider_sewer.slurm.job_products import require_workdir
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_script import can_set
from airflow_provider_sewer.slurm.job_spec import JobSpec
from airflow_provider_sewer.slurm.submitted_job import end_of, job_from_data, job_to_data
from airflow_provider_sewer.slurm.usage import usage_of

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.hooks.sewer import SewerHook
    from airflow_provider_sewer.slurm.job_result import JobResult

#: Stands for an argument that was left out, where ``None`` means something else.
NOT_GIVEN: Any = object()
#: How long a deferred task waits at most where `execution_timeout` says nothing.
_LONGEST_DEFERRAL = timedelta(days=90)
#: What trying again would not help.
_NOT_TO_BE_TRIED_AGAIN = (
    InvalidTask,
    SlurmSubmissionRejected,
    SlurmUnsatisfiable,
    UntrustedPath,
    AirflowFailException,
)
#: Where a task notes its job for its later tries, in Airflow's own store.
_NOTED_JOB = "slurm_job"
#: Seconds that cancelling may take, and asking Airflow before that: Airflow kills a worker five seconds after it has
#: asked it to stop. The run directory is marked first, and scancel outlives the worker.
_CANCEL_TIMEOUT, _ASK_TIMEOUT = 4.0, 3.0


class SlurmModuleOperator(PythonModuleOperator):
    """Run ``python -m module`` as a Slurm job, with parameters and flags, in an interpreter of the nodes.

    Takes everything that :class:`PythonModuleOperator` takes, and the following. What is not said here is
    taken from the connection, then from :data:`~airflow_provider_sewer.core.slurm_settings.DEFAULTS`.

    Paths are those of the nodes. Always give ``workdir``, here or in the connection, to tasks that share files by
    relative paths: without it a task runs in its own run directory, also with ``cluster="local"``.

    The task is green only if the job's script has recorded that the module exited with 0. A retry after a
    crash takes up the job that is there; a retry after a failure submits anew, and so does a person's clear.

    :param slurm: what the job asks for, by submitit's names (``partition``, ``mem_gb``, ``timeout_min``, …), see
        :data:`~airflow_provider_sewer.core.slurm_settings.RESOURCES`. Merged parameter by parameter over
        what ``default_args``
        say, and over the connection; ``None`` for one of them drops what these say. (templated)
    :param run_dir: folder in which every attempt gets a run directory; worker, triggerer and all nodes have to see
        it. ``~/.sewer/runs`` if nobody says. (templated)
    :param cluster: ``slurm``, ``local`` (the same script on this machine, where what ``slurm`` asks for means nothing
        but ``setup``, ``teardown`` and ``stderr_to_stdout``), or ``auto``: Slurm where there is an sbatch. ``auto`` if
        nobody says.
    :param deferrable: wait in the triggerer; Airflow's ``operators.default_deferrable`` if nobody says. The triggerer
        has to run as the same Unix user as the worker. It tells of no end in the first 10 s: not for jobs of seconds.
    :param poll_interval: seconds, or a timedelta, between two looks at a job at first; 5 if nobody says.
    :param max_poll_interval: seconds, or a timedelta, that this grows to while nothing changes; 60 if nobody says, or
        ``poll_interval`` if that is more.
    :param durable: whether a retry after a crash takes up the job; it does if nobody says. With ``False`` a new one
        is submitted, and the earlier one cancelled first, unless ``on_kill_action`` keeps it.
    :param on_kill_action: ``cancel_job``, which is the default, or ``keep_job`` when the task is killed, cleared or
        marked.
    :param requeue: whether Slurm may start the job anew after a failed node or a preemption; it may not if nobody
        says. Its secrets then stay in its run directory, for its owner to read, until the task has seen its end.
    :param max_pending_time: seconds, or a timedelta, that it may wait for its start; no limit if nobody says.
    :param fail_on_pending_reason: Slurm's reasons for which a waiting job is given up, instead of the built-in ones;
        an empty list for none.
    :param lost_after: seconds, or a timedelta, after which a job that nobody knows any more is a failure; 300 if
        nobody says.
    :param orphan_timeout: seconds, or a timedelta, after which a running job that no worker or triggerer follows ends
        itself; a day by default, and ``None`` or 0 for never. Not for jobs that are meant to run on alone
        (``wait_for_completion=False``, ``on_kill_action="keep_job"``).
    :param wait_for_completion: ``False`` to end with the submission; the result is then the job's id, and nobody
        looks after the job: the secrets of one that is cancelled before it begins stay in its run directory.
    :param array: whether the instances of a mapped task are submitted together, as job arrays; see
        :mod:`~airflow_provider_sewer.slurm.arrays`. They are not if nobody says. Best with ``deferrable``: the
        others that wait take no worker.
    :param array_wait: seconds, or a timedelta, without another instance after which an array is submitted that is not
        complete; 30 if nobody says.
    """

    template_fields: Sequence[str] = (*PythonModuleOperator.template_fields, "slurm", "run_dir")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **PythonModuleOperator.template_fields_renderers,
        "slurm": "json",
    }
    operator_extra_links: Sequence[BaseOperatorLink] = (SlurmJobLink(),)
    ui_color = "#cfdce3"
    _runs_here: ClassVar[bool] = False

    def __init__(
        self,
        *,
        slurm: Mapping[str, Any] | None = None,
        run_dir: str | os.PathLike[str] | None = None,
        cluster: str | None = None,
        deferrable: bool | None = None,
        poll_interval: float | timedelta | None = None,
        max_poll_interval: float | timedelta | None = None,
        durable: bool | None = None,
        on_kill_action: str | None = None,
        requeue: bool | None = None,
        max_pending_time: float | timedelta | None = None,
        fail_on_pending_reason: Iterable[str] | None = None,
        lost_after: float | timedelta | None = None,
        orphan_timeout: float | timedelta | None = NOT_GIVEN,
        wait_for_completion: bool | None = None,
        array: bool | None = None,
        array_wait: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        self.slurm = _over_defaults(slurm, kwargs.get("default_args"))
        self.run_dir = run_dir
        self.cluster = cluster
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.max_poll_interval = max_poll_interval
        self.durable = durable
        self.on_kill_action = on_kill_action
        self.requeue = requeue
        self.max_pending_time = max_pending_time
        self.fail_on_pending_reason = fail_on_pending_reason
        self.lost_after = lost_after
        self.orphan_timeout = _zero_for_none(orphan_timeout)
        self.wait_for_completion = wait_for_completion
        self.array = array
        self.array_wait = array_wait
        super().__init__(**kwargs)
        self.job_link: str | None = None
        self._job_url: str | None = None
        self._job_run: JobRunner | None = None
        self._instance: Any = None
        self._has_timed_out = False

    def execute(self, context: Context) -> Any:
        """Submit the job, or take up the one that is there, and return the module's result.

        :raises SlurmError: when the job cannot be submitted, or did not end well.
        """
        with self._interruptible(context), _no_futile_retry(), self._no_orphan(context):
            run = self._prepare_run(context, counts=True)
            if run.reattach() is None:
                self._prepare_attempt(context, run)
                require_workdir(run.planned.task)
                claim_temporary(run.planned.task, context, self.log.warning)
                judged = TaskRunner(run.planned.task, {})
                if (left := self._left_by_an_earlier_run(context, judged)) is not None:
                    return self._checked_result(context, left.value)
                warn_of_other_runs(run.planned.task, context, self.log.warning)
                run.planned = run.planned._replace(runs_before=judged.runs_before)
            slurm = run.planned.slurm
            job = run.submit_or_reattach()
            self._store_job(context, run, job)
            if isinstance(job, PendingJob):
                if slurm.deferrable and slurm.wait_for_completion:
                    self._wait_in_triggerer(job, run)
                job = run.wait_for_array(job)
                self._store_job(context, run, job)
            self._announce(context, job, has_reattached=run.has_reattached)
            if not slurm.wait_for_completion:
                return job.ref.id
            if slurm.deferrable and not has_said_how_it_ended(job):
                self._wait_in_triggerer(job, run)
            return self._collect(context, run, run.follow(job))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Log what the job has written last, and return the result of the job whose end the triggerer has seen.

        :raises SlurmError: when it did not end well.
        :raises TaskDeferralError: when a triggerer of another version has seen it.
        """
        run = self._prepare_run(context)
        try:
            job, ending = end_of(event)
        except UnreadableRecord as error:  # the run directory has all that is in the event
            raise TaskDeferralError(str(error)) from None
        run.log_rest(ending)
        if isinstance(job, Job):  # otherwise it never was one
            self._push_job_info(context, run, job)
        return self._collect(context, run, ending)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral, also where it timed out or the trigger failed: no job is left behind."""
        with self._interruptible(context), _no_futile_retry(), self._no_orphan(context):
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except TaskDeferralTimeout:
                self.log.error("The task has waited for its job as long as it may")  # noqa: TRY400 - says it all
                self._cancel_left(context)
                raise
            except TaskDeferralError as error:
                run = self._prepare_run(context)
                if (job := run.latest_job()) is None:
                    raise
                self._push_job_info(context, run, job)
                self.log.warning("The trigger has failed; following %s from here: %s", job, error)
                return self._collect(context, run, run.follow(job))

    def on_kill(self) -> None:
        """Cancel the job if a user has marked or cleared the task, or its time is over; also during its submission.

        Where Airflow only moves the task to another process, or does not answer, the job is left to the next try.
        """
        self._killed = True
        run = self._job_run
        if run is None:
            return
        if run.planned.slurm.on_kill_action == "keep_job":
            self.log.info("The job goes on: on_kill_action is 'keep_job'")
            return
        state = self._state_in_airflow()
        if state.request is not UserRequest.NONE:
            run.cancel(timeout=_CANCEL_TIMEOUT, is_cleared=state.request is UserRequest.CLEAR)
        elif state.is_running and self._is_last_try():
            self.log.warning("Asked to stop, but the task is still running in Airflow; following the job to the end")
        else:
            self.log.warning("Leaving the job to the next try; Airflow has the task as %s", state.text)
            run.release()

    def _state_in_airflow(self) -> TaskState:
        if self._has_timed_out:
            return TaskState(UserRequest.END, "timed out")
        if supervisor() is None:
            return TaskState(UserRequest.END, "stopped by its user")  # `airflow dags test`
        return read_task_state(self._instance, _ASK_TIMEOUT)

    def _is_with_another_process(self) -> bool:
        """Tell whether Airflow has given the task to another process, so that this one fails of that alone."""
        if supervisor() is None or self._job_run is None:
            return False
        state = read_task_state(self._instance, _ASK_TIMEOUT)
        if state.is_running:
            return self._job_run.is_followed_by_another
        return state.request is UserRequest.NONE

    def _is_last_try(self) -> bool:
        return bool(self._instance.try_number > self._instance.max_tries)

    # -- What is to run ------------------------------------------------------------------------------------------------

    def _prepare_run(self, context: Context, *, counts: bool = False) -> JobRunner:
        """Return what runs the job.

        :param counts: whether it matters how many instances a mapped task has.
        """
        hook = self._hook()
        self._job_url = hook.job_url if hook else None
        task = self._prepared(lambda: self._sewer_task(context, hook))
        env = {**_inherited(task.settings.inherit_env), **task.settings.env}
        planned = JobSpec(
            instance=_instance(context),
            task=task.with_settings(task.settings._replace(env=env)),
            slurm=self._slurm_settings(self._dag_folder(context), hook),
            secret_env={name: env[name] for name in (hook.secret_env if hook else ())},
            grace=seconds(self.termination_grace_period),
            active=left_to_interpreter(task.settings.env, task.settings.inherit_env),
        )
        if counts and planned.shares_array:
            ti = context["ti"]
            expected = ti.get_ti_count(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
            planned = planned._replace(expected=expected)
        self._instance = context["ti"]
        self._job_run = JobRunner(planned, log_output, line_logger(self.log), supervisor())
        if self._killed:
            self.on_kill()
        return self._job_run

    def _prepare_attempt(self, context: Context, run: JobRunner) -> None:
        """Complete what is to run, now that it is known that no earlier try has left a job to go on with."""

    def _slurm_settings(self, folder: str, hook: SewerHook | None) -> SlurmSettings:
        own = SlurmSettings.checked(**self._given_settings(), folder=folder)
        slurm = own.with_fallback(hook.slurm_settings if hook else SlurmSettings()).with_fallback(DEFAULTS)
        if supervisor() is None:  # in dag.test(), mapped instances run one after the other
            slurm = slurm._replace(array=False)
        if slurm.deferrable is None:
            slurm = slurm._replace(deferrable=conf.getboolean("operators", "default_deferrable", fallback=False))
        return slurm

    def _given_settings(self) -> dict[str, Any]:
        return {field: getattr(self, field) for field in SlurmSettings._fields}

    def _check(self, known: dict[str, Any], whole: dict[str, Any]) -> None:
        super()._check(known, whole)
        SlurmSettings.checked(**{**self._given_settings(), "slurm": whole["slurm"], "run_dir": known["run_dir"]})
        checked_run_dir(os.fspath(known["run_dir"] or ""))

    # -- What is done with it ------------------------------------------------------------------------------------------

    def _interruptible(self, context: Context) -> AbstractContextManager[None]:
        return interruptible(context, is_supervised=supervisor() is not None)

    @contextmanager
    def _no_orphan(self, context: Context) -> Iterator[None]:
        """Cancel the job if what happens here leaves it to nobody: neither to a triggerer nor to a retry."""
        try:
            yield
        except (SlurmJobReleased, UnreadableRecord):  # the latter: the job may have succeeded, or may yet
            raise
        except AirflowTaskTimeout:  # Airflow calls on_kill next
            self._has_timed_out = True
            raise
        except KeyboardInterrupt:  # in `airflow dags test`, see `interruptible`
            self.on_kill()
            raise
        except Exception as error:
            is_last = isinstance(error, _NOT_TO_BE_TRIED_AGAIN) or context["ti"].try_number > context["ti"].max_tries
            if is_last and not self._is_with_another_process():
                self._cancel_left(context)
            raise

    def _cancel_left(self, context: Context) -> None:
        """Cancel the job that this task has left, if there is one; also where the connection is gone by now."""
        noted: Any = None
        with suppress(Exception):  # the store may be away, and that be why this try fails; the run directory is not
            if store := context.get("task_state_store"):
                noted = NOTED_JOB.read("the job in the store of task states", store.get(_NOTED_JOB))
        if noted is None:
            with suppress(Exception):  # of which the task would fail anyway
                run = self._job_run or self._prepare_run(context)
                if run.planned.slurm.on_kill_action != "keep_job":
                    run.cancel_latest(timeout=_CANCEL_TIMEOUT)
        elif self.on_kill_action != "keep_job" and not noted["keep"]:
            cancel(job_from_data(noted["job"]), self.log.info, timeout=_CANCEL_TIMEOUT)

    def _store_job(self, context: Context, run: JobRunner, job: Job | PendingJob) -> None:
        """Note in Airflow's store what there is to be cancelled."""
        if store := context.get("task_state_store"):
            keeps = run.planned.slurm.on_kill_action == "keep_job"
            store.set(_NOTED_JOB, NOTED_JOB.written({"job": job_to_data(job), "keep": keeps}))

    def _announce(self, context: Context, job: Job, *, has_reattached: bool) -> None:
        """Say where the job and its files are, in the log and to other tasks."""
        if not has_reattached:  # that line names the directory, too
            self.log.info("Submitted %s; job directory: %s", job, job.directory.path)
        if job.cluster.kind == "slurm":
            is_element = "_" in job.ref.id
            number = f"$(squeue -h -j {job.ref.id} -o %A)" if is_element else job.ref.id  # srun takes only numbers
            self.log.info("To look inside while it runs: srun --jobid %s --overlap --pty bash", number)
        self._make_link(job)
        context["ti"].xcom_push(key="slurm_job_id", value=job.ref.id)

    def _push_job_info(self, context: Context, run: JobRunner, job: Job) -> None:
        """Tell of a job what was not known of it when the task was deferred."""
        self._make_link(job)
        if run.planned.shares_array:
            context["ti"].xcom_push(key="slurm_job_id", value=job.ref.id)

    def _make_link(self, job: Job) -> None:
        if self._job_url and job.cluster.kind == "slurm":
            parts = {"job_id": job.ref.id, "job_name": job.ref.name, "user": getpass.getuser()}
            self.job_link = self._job_url.format(**{name: quote(part, safe="") for name, part in parts.items()})

    def _wait_in_triggerer(self, job: Job | PendingJob, run: JobRunner) -> None:
        # Imported when it is needed: Airflow's triggers take as long as a third of what a DAG file imports from here.
        from airflow_provider_sewer.triggers.encrypted_fields import encrypt_secrets
        from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

        target = self.module or self.function or ""
        # Airflow does not enforce execution_timeout while a task is deferred.
        timeout = self.execution_timeout or _LONGEST_DEFERRAL
        settings = slurm_to_data(run.planned.slurm._replace(slurm={}))
        secrets = encrypt_secrets(run.secrets(job.directory), job.directory)
        deadline = time.time() + timeout.total_seconds()
        trigger = SlurmJobTrigger(job_to_data(job), target, settings, secrets, deadline)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def _collect(self, context: Context, run: JobRunner, ending: JobResult) -> Any:
        """Return the result, or raise what has happened."""
        if store := context.get("task_state_store"):
            store.delete(_NOTED_JOB)
        context["ti"].xcom_push(key="slurm_usage", value=usage_of(JobDirectory(ending.run_directory or "")))
        try:
            result = run.collect(ending)
        except SlurmJobFailed as error:
            self._skip_if_requested(error.exit_code)
            raise
        self._push_run_info(context, TaskRunner(run.saved_task(JobDirectory(ending.run_directory or "")), {}))
        try:
            return self._checked_result(context, result)
        except Exception:
            run.reject(ending)
            raise


@contextmanager
def _no_futile_retry() -> Iterator[None]:
    """Fail the task at once where trying again would not help."""
    try:
        yield
    except _NOT_TO_BE_TRIED_AGAIN as error:
        raise AirflowFailException(str(error)) from None


def _over_defaults(slurm: Any, default_args: Mapping[str, Any] | None) -> Any:
    """Complete what a task asks for by what the default arguments ask for, which Airflow would leave out."""
    others = (default_args or {}).get("slurm")
    if not isinstance(slurm, Mapping) or not isinstance(others, Mapping):
        return slurm
    return SlurmSettings(slurm=slurm).with_fallback(SlurmSettings(slurm=others)).slurm


def _zero_for_none(orphan_timeout: Any) -> Any:
    """Return 0 for an explicit ``None``: elsewhere ``None`` leaves the setting to the connection."""
    return None if orphan_timeout is NOT_GIVEN else 0 if orphan_timeout is None else orphan_timeout


def _inherited(inherit: Inherit | None) -> dict[str, str]:
    """Return what the job inherits of the worker's environment; of all of it, what a job script can set."""
    env = inherited(inherit or False)
    return {name: value for name, value in env.items() if can_set(name)} if inherit is True else env


def _instance(context: Context) -> TaskInstance:
    """Return the task instance, with what changes when a user clears it.

    Airflow gives a task that is cleared more tries, unless it is running. Then its `on_kill` marks the run directory.
    """
    ti = context["ti"]
    return TaskInstance(
        ti.dag_id,
        ti.run_id,
        ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        clears=str(ti.max_tries),
        run_clears=context["dag_run"].clear_number or 0,
        is_extra=ti.try_number > ti.max_tries + 1,
        try_number=ti.try_number,
    )
