"""Airflow operator that runs a Python module as a Slurm job."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout, TaskDeferralError, TaskDeferralTimeout

from airflow_provider_sewer.core.environment import inherited
from airflow_provider_sewer.core.errors import (
    FINAL_ERRORS,
    SlurmError,
    SlurmJobFailed,
    SlurmJobReleased,
    UnreadableRecord,
)
from airflow_provider_sewer.core.formats import STORED_JOB
from airflow_provider_sewer.core.retry_requests import (
    checked_retry_with,
    merged_rules,
    reject_missing_amounts,
    without_missing_amounts,
)
from airflow_provider_sewer.core.serialization import slurm_to_data
from airflow_provider_sewer.core.slurm_settings import DEFAULTS, SlurmSettings
from airflow_provider_sewer.execution.activation import interpreter_variables
from airflow_provider_sewer.execution.job_messages import line_logger
from airflow_provider_sewer.execution.task_log import log_output
from airflow_provider_sewer.hooks.task_state import TaskState, UserRequest, read_task_state
from airflow_provider_sewer.links.slurm import SlurmJobLink
from airflow_provider_sewer.operators.dag_test_signals import interruptible
from airflow_provider_sewer.operators.field_checks import RUNTIME_VALUE, seconds
from airflow_provider_sewer.operators.module import PythonModuleOperator, failing_at_once, folder_of, hook_of
from airflow_provider_sewer.operators.overlapping_runs import claim_temporary, warn_of_other_runs
from airflow_provider_sewer.operators.result_checks import checked_result
from airflow_provider_sewer.operators.secret_fields import reveal_secrets
from airflow_provider_sewer.operators.supervisor import supervisor
from airflow_provider_sewer.operators.upstream_runs import push_run_info
from airflow_provider_sewer.operators.xcom_references import is_reference
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.cancellation import TIMEOUT_BEFORE_KILL, cancel_job
from airflow_provider_sewer.slurm.job import Job, PendingJob
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_products import require_workdir
from airflow_provider_sewer.slurm.job_result import JobResult
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_script import can_set
from airflow_provider_sewer.slurm.job_spec import JobSpec
from airflow_provider_sewer.slurm.job_url import url_of
from airflow_provider_sewer.slurm.job_usage import usage_for_xcom
from airflow_provider_sewer.slurm.run_dir import checked_run_dir
from airflow_provider_sewer.slurm.submission import submitted_message

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.hooks.sewer import SewerHook

#: Default of an argument for which ``None`` has a meaning of its own.
NOT_GIVEN: Any = object()
#: Longest deferral of a task without `execution_timeout`.
_LONGEST_DEFERRAL = timedelta(days=90)
#: Errors that a retry cannot resolve.
_NOT_RETRYABLE = (*FINAL_ERRORS, AirflowFailException)
#: Key in Airflow's task state store under which a task records its job for later tries.
_JOB_KEY = "slurm_job"
#: Seconds for querying Airflow before the job is cancelled.
_ASK_TIMEOUT = 3.0


class SlurmModuleOperator(PythonModuleOperator):
    """Run ``python -m module`` as a Slurm job, with parameters and flags, in an interpreter of the nodes.

    Accepts all arguments of :class:`PythonModuleOperator`, and those below. The connection fills in arguments that are
    not given, then :data:`~airflow_provider_sewer.core.slurm_settings.DEFAULTS`.

    Paths refer to the nodes' file system. Tasks that share files by relative paths need ``workdir``, here or in the
    connection. Without it a task runs in its own job directory, also with ``cluster="local"``.

    The task succeeds only if the job script has recorded exit code 0. A retry after a crash reattaches to the job. A
    retry after a failure, or a clear by a user, submits a new one.

    :param slurm: sbatch options by submitit's names (``partition``, ``mem_gb``, ``timeout_min``, …), see
        :data:`~airflow_provider_sewer.core.slurm_parameters.RESOURCES`. They override those of ``default_args`` and of
        the connection one by one; ``None`` removes an option given there. (templated)
    :param run_dir: base directory of the job directories, one per attempt; must be visible to the worker, the
        triggerer and all nodes. Default: ``~/.sewer/runs``. (templated)
    :param cluster: ``slurm``; ``local``, which runs the same script on this machine and ignores all of ``slurm`` except
        ``setup``, ``teardown`` and ``stderr_to_stdout``; or ``auto``, which uses Slurm if sbatch is found. Default:
        ``auto``.
    :param deferrable: wait in the triggerer, which must run as the same Unix user as the worker. The trigger does not
        fire in its first 10 s, so it does not suit jobs of seconds. Default:
        Airflow's ``operators.default_deferrable``.
    :param poll_interval: initial interval between polls of a job, in seconds or as a timedelta. Default: 5.
    :param max_poll_interval: upper limit of the interval, which grows while nothing changes, in seconds or as a
        timedelta. Default: 60, or ``poll_interval`` if that is more.
    :param durable: whether a retry after a crash reattaches to the job. With ``False`` it submits a new job, after
        cancelling the previous one unless ``on_kill_action`` is ``keep_job``. Default: ``True``.
    :param on_kill_action: ``cancel_job`` or ``keep_job`` when the task is killed, cleared or marked. Default:
        ``cancel_job``.
    :param requeue: whether Slurm may requeue the job after a node failure or a preemption. If so, its secrets stay in
        its job directory, readable by its owner, until the task has seen its end. Default: ``False``.
    :param max_pending_time: longest time a job may be pending, in seconds or as a timedelta. Default: no limit.
    :param fail_on_pending_reason: Slurm's pending reasons that fail the task, instead of the built-in ones; an empty
        list for none.
    :param lost_after: time after which a job unknown to Slurm fails, in seconds or as a timedelta. Default: 300.
    :param orphan_timeout: time after which a running job ends itself if no worker or triggerer monitors it, in seconds
        or as a timedelta; ``None`` or 0 for never. Does not apply to jobs meant to run unattended
        (``wait_for_completion=False``, ``on_kill_action="keep_job"``). Default: a day.
    :param wait_for_completion: ``False`` to return the job id after submission. The job is then not monitored: if it is
        cancelled before it starts, its secrets stay in its job directory. Default: ``True``.
    :param array: whether to submit the instances of a mapped task together as job arrays, see
        :mod:`~airflow_provider_sewer.slurm.arrays`. Best with ``deferrable``, as waiting instances then occupy no
        worker. Default: ``False``.
    :param array_wait: time without a new instance after which an incomplete array is submitted, in seconds or as a
        timedelta. Default: 30.
    :param retry_with: changes of the request of a retry, by the error of the attempt before, such as
        ``{"SlurmOutOfMemory": {"mem_gb": 2.0}}``, see :mod:`~airflow_provider_sewer.core.retry_requests`. They override
        those of ``default_args`` and of the connection error by error. Without Slurm they have no effect.
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
        retry_with: Mapping[str, Any] | None = None,
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
        self.retry_with = _rules_over_defaults(retry_with, kwargs.get("default_args"))
        super().__init__(**kwargs)
        self.job_link: str | None = None
        self._job_url: str | None = None
        self._job_run: JobRunner | None = None
        self._instance: Any = None
        self._has_timed_out = False

    def execute(self, context: Context) -> Any:
        """Submit the job or reattach to it, and return the module's result.

        :raises SlurmError: when the job cannot be submitted or fails.
        """
        with self._no_orphan(context):
            ti, run = context["ti"], self._prepare_run(context, counts=True)
            if run.reattach() is None:
                self._prepare_attempt(context, run)
                require_workdir(run.spec.task)
                claim_temporary(self.task_id, run.task_run.products, ti, self.log.warning)
                if (current := self._up_to_date_result(context, run.task_run)) is not None:
                    return checked_result(current.value, ti, self.iter_mapped_dependants())
                warn_of_other_runs(run.task_run.products, ti, self.log.warning)
            return self._run_job(context, run)

    def _run_job(self, context: Context, run: JobRunner) -> Any:
        """Submit the job, unless the runner has reattached to one, and return the module's result."""
        slurm = run.spec.slurm
        job = run.submit_or_reattach()
        self._store_job(context, run, job)
        if isinstance(job, PendingJob):
            if slurm.deferrable and slurm.wait_for_completion:
                self._wait_in_triggerer(context, job, run)
            job = run.wait_for_array(job)
            self._store_job(context, run, job)
        if not run.has_reattached:  # that line names the directory, too
            self.log.info("%s", submitted_message(job))
        if job.cluster.kind == "slurm":
            self.log.info("To open a shell in the running job: %s", shell_command(job))
        self._publish(context["ti"], job)
        if not slurm.wait_for_completion:
            return job.ref.id
        if slurm.deferrable and not job.directory.has_final_record:
            self._wait_in_triggerer(context, job, run)
        return self._collect(context, run, run.follow(job))

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Log the job's remaining output and return its result, after the trigger has fired.

        :raises SlurmError: when the job failed.
        :raises TaskDeferralError: when a triggerer of another version wrote the event.
        """
        run = self._prepare_run(context)
        try:
            job, job_result = JobResult.from_event(event)
        except UnreadableRecord as error:  # the job directory holds everything in the event
            raise TaskDeferralError(str(error)) from None
        run.log_rest(job.directory)
        if isinstance(job, Job):  # a pending job was never submitted
            self._publish(context["ti"], job, pushes_id=run.spec.shares_array)
        return self._collect(context, run, job_result)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral, also after a timeout or a failed trigger, without leaving a job behind."""
        with self._no_orphan(context):
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except TaskDeferralTimeout:
                self.log.error("Timed out waiting for the job (execution_timeout)")  # noqa: TRY400 - a traceback adds nothing
                self._cancel_recorded_job(context)
                raise
            except TaskDeferralError as error:
                run = self._prepare_run(context)
                if (job := run.latest_job()) is None:
                    raise
                self._publish(context["ti"], job, pushes_id=run.spec.shares_array)
                self.log.warning("The trigger failed; monitoring %s on the worker: %s", job, error)
                return self._collect(context, run, run.follow(job))

    def on_kill(self) -> None:
        """Cancel the job if a user has marked or cleared the task, or the task timed out; also during submission.

        If Airflow only moves the task to another process, or does not answer, the next try reattaches to the job.
        """
        self._killed = True
        run = self._job_run
        if run is None:
            return
        if run.spec.slurm.on_kill_action == "keep_job":
            self.log.info("Keeping the job: on_kill_action is 'keep_job'")
            return
        state = self._state_in_airflow()
        if state.request is not UserRequest.NONE:
            run.cancel(timeout=TIMEOUT_BEFORE_KILL, is_cleared=state.request is UserRequest.CLEAR)
        elif state.is_running and self._is_last_try():
            self.log.warning("Stop requested, but the task is still running in Airflow; monitoring the job to its end")
        else:
            self.log.warning("Leaving the job to the next try; task state in Airflow: %s", state.text)
            run.release()

    def _state_in_airflow(self) -> TaskState:
        if self._has_timed_out:
            return TaskState(UserRequest.END, "timed out")
        if supervisor() is None:
            return TaskState(UserRequest.END, "stopped by its user")  # `airflow dags test`
        return read_task_state(self._instance, _ASK_TIMEOUT)

    def _is_with_another_process(self) -> bool:
        """Return whether Airflow has given the task to another process, which alone makes this one fail."""
        if supervisor() is None or self._job_run is None:
            return False
        state = read_task_state(self._instance, _ASK_TIMEOUT)
        if state.is_running:
            return self._job_run.is_monitored_by_another
        return state.request is UserRequest.NONE

    def _is_last_try(self) -> bool:
        return bool(self._instance.try_number > self._instance.max_tries)

    # -- Job specification ---------------------------------------------------------------------------------------------

    def _prepare_run(self, context: Context, *, counts: bool = False) -> JobRunner:
        """Return the runner of the job.

        :param counts: whether to query the number of instances of a mapped task.
        """
        ti, hook = context["ti"], hook_of(self.sewer_conn_id)
        self._job_url = hook.job_url if hook else None
        with failing_at_once():
            task = self._sewer_task(context, hook)
        active = interpreter_variables(task.settings.env, task.settings.inherit_env)
        env = {**_inherited(task.settings.inherit_env), **task.settings.env}
        task.settings = task.settings._replace(env=env)
        given = {field: reveal_secrets(getattr(self, field)) for field in SlurmSettings._fields}
        own = SlurmSettings.checked(**given, folder=self._folder or folder_of(context["dag"]))
        planned = JobSpec(
            instance=_instance(ti, context["dag_run"].clear_number or 0),
            task=task,
            slurm=_resolved(own, hook),
            secret_env={name: env[name] for name in (hook.secret_env if hook else ())},
            other_secrets=self._secrets_in_fields(),
            grace=seconds(self.termination_grace_period),
            active=active,
            is_first_try=ti.try_number == 1,
            is_last_try=ti.try_number > ti.max_tries,
        )
        if counts and planned.shares_array:
            expected = ti.get_ti_count(dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id])
            planned = planned._replace(expected=expected)
        self._instance = ti
        self._job_run = JobRunner(planned, log_output, line_logger(self.log), supervisor())
        if self._killed:
            self.on_kill()
        return self._job_run

    def _prepare_attempt(self, context: Context, run: JobRunner) -> None:
        """Complete the job specification; called only if there is no job to reattach to."""

    def _check(self, fields: Mapping[str, Any], literal: Mapping[str, Any]) -> None:
        super()._check(fields, literal)
        given = {field: getattr(self, field) for field in SlurmSettings._fields}
        slurm = SlurmSettings.checked(**{**given, "slurm": literal["slurm"], "run_dir": fields["run_dir"]})
        if self.sewer_conn_id is None and not is_reference(self.slurm):  # else the connection may request more
            reject_missing_amounts(slurm.retry_with, {**dict.fromkeys(self.slurm or (), RUNTIME_VALUE), **slurm.slurm})
        checked_run_dir(os.fspath(fields["run_dir"] or ""))

    # -- Lifecycle of the job ------------------------------------------------------------------------------------------

    @contextmanager
    def _no_orphan(self, context: Context) -> Iterator[None]:
        """Cancel the job if an error in the block leaves it neither to a triggerer nor to a retry.

        An error that a retry cannot resolve fails the task without one.
        """
        with interruptible(context["ti"], is_supervised=supervisor() is not None), _fail_without_retry():
            try:
                yield
            except (SlurmJobReleased, UnreadableRecord):  # UnreadableRecord: the job may succeed
                raise
            except AirflowTaskTimeout:  # Airflow calls on_kill next
                self._has_timed_out = True
                raise
            except KeyboardInterrupt:  # in `airflow dags test`, see `interruptible`
                self.on_kill()
                raise
            except Exception as error:
                is_last = isinstance(error, _NOT_RETRYABLE) or context["ti"].try_number > context["ti"].max_tries
                if is_last and not self._is_with_another_process():
                    self._cancel_recorded_job(context)
                raise

    def _cancel_recorded_job(self, context: Context) -> None:
        """Cancel the job of this task, if there is one, even if the connection no longer exists."""
        record: Any = None
        with suppress(Exception):  # an unreachable store may be why this try fails; the job directory remains
            if store := context.get("task_state_store"):
                record = STORED_JOB.read("the job in the store of task states", store.get(_JOB_KEY))
        if record is None:
            with suppress(Exception):  # the task fails anyway
                run = self._job_run or self._prepare_run(context)
                if run.spec.slurm.on_kill_action != "keep_job":
                    run.cancel_latest(timeout=TIMEOUT_BEFORE_KILL)
        elif self.on_kill_action != "keep_job" and not record["keep"]:
            cancel_job(Job.from_dict(record["job"]), line_logger(self.log), timeout=TIMEOUT_BEFORE_KILL)

    def _store_job(self, context: Context, run: JobRunner, job: Job | PendingJob) -> None:
        """Record the job in Airflow's task state store, for cancelling."""
        if store := context.get("task_state_store"):
            keeps = run.spec.slurm.on_kill_action == "keep_job"
            store.set(_JOB_KEY, STORED_JOB.written({"job": job.to_dict(), "keep": keeps}))

    def _publish(self, ti: RuntimeTaskInstanceProtocol, job: Job, *, pushes_id: bool = True) -> None:
        """Set the link to a job, and push its id to XCom.

        :param pushes_id: whether the id was unknown until now.
        """
        if self._job_url and job.cluster.kind == "slurm":
            self.job_link = url_of(self._job_url, job.ref)
        if pushes_id:
            ti.xcom_push(key="slurm_job_id", value=job.ref.id)

    def _wait_in_triggerer(self, context: Context, job: Job | PendingJob, run: JobRunner) -> None:
        # Imported here: Airflow's triggers take a third of the time that importing this module costs a DAG file.
        from airflow_provider_sewer.triggers.encrypted_fields import encrypt_secrets
        from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

        target = run.runner_of(job.directory).task.target
        # Airflow does not enforce execution_timeout while a task is deferred.
        timeout = self._time_left(context)
        settings = slurm_to_data(run.spec.slurm._replace(slurm={}, retry_with=None))
        secrets = encrypt_secrets(run.secrets(job.directory), job.directory)
        deadline = time.time() + timeout.total_seconds()
        trigger = SlurmJobTrigger(job.to_dict(), target, settings, secrets, deadline)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def _time_left(self, context: Context) -> timedelta:
        """Return how long this try may still take; its earlier deferrals count."""
        if self.execution_timeout is None:
            return _LONGEST_DEFERRAL
        began = context["ti"].start_date
        return max(began + self.execution_timeout - datetime.now(began.tzinfo), timedelta(seconds=1))

    def _collect(self, context: Context, run: JobRunner, job_result: JobResult) -> Any:
        """Return the result, or raise the error of the job."""
        ti, directory = context["ti"], JobDirectory(job_result.run_directory or "")
        if store := context.get("task_state_store"):
            store.delete(_JOB_KEY)
        ti.xcom_push(key="slurm_usage", value=usage_for_xcom(run.record_usage(job_result)))
        try:
            result = run.collect(job_result)
        except SlurmError as error:
            if isinstance(error, SlurmJobFailed):
                self._skip_if_requested(error.exit_code)
            if not run.has_extra_try(job_result, error):
                raise
            self.log.warning("%s", error)
            self._prepare_attempt(context, run)
            return self._run_job(context, run)
        if self.run_when != "always":
            push_run_info(ti, run.runner_of(directory).latest_run(), reran=True)
        try:
            return checked_result(result, ti, self.iter_mapped_dependants())
        except Exception:
            run.reject(job_result)
            raise


@contextmanager
def _fail_without_retry() -> Iterator[None]:
    """Fail the task at once for errors that a retry cannot resolve."""
    try:
        yield
    except _NOT_RETRYABLE as error:
        raise AirflowFailException(str(error)) from None


def _over_defaults(slurm: Any, default_args: Mapping[str, Any] | None) -> Any:
    """Merge a task's ``slurm`` over that of the default arguments, which Airflow would replace."""
    others = (default_args or {}).get("slurm")
    if not isinstance(slurm, Mapping) or not isinstance(others, Mapping):
        return slurm
    return SlurmSettings(slurm=slurm).with_fallback(SlurmSettings(slurm=others)).slurm


def _rules_over_defaults(retry_with: Any, default_args: Mapping[str, Any] | None) -> Any:
    """Merge a task's ``retry_with`` over that of the default arguments, likewise."""
    others = (default_args or {}).get("retry_with")
    if not isinstance(retry_with, Mapping) or not isinstance(others, Mapping):
        return retry_with
    return merged_rules(checked_retry_with(retry_with), checked_retry_with(others))


def _resolved(own: SlurmSettings, hook: SewerHook | None) -> SlurmSettings:
    """Return a task's settings, completed by those of its connection, Airflow and the defaults."""
    slurm = own.with_fallback(hook.slurm_settings if hook else SlurmSettings()).with_fallback(DEFAULTS)
    with failing_at_once():
        reject_missing_amounts(own.retry_with, slurm.slurm)
    slurm = slurm._replace(retry_with=without_missing_amounts(slurm.retry_with, slurm.slurm))
    if supervisor() is None:  # in dag.test(), mapped instances run one after the other
        slurm = slurm._replace(array=False)
    if slurm.deferrable is None:
        slurm = slurm._replace(deferrable=conf.getboolean("operators", "default_deferrable", fallback=False))
    return slurm


def _zero_for_none(orphan_timeout: Any) -> Any:
    """Return 0 for an explicit ``None``: otherwise ``None`` leaves the setting to the connection."""
    return None if orphan_timeout is NOT_GIVEN else 0 if orphan_timeout is None else orphan_timeout


def _inherited(inherit: Inherit | None) -> dict[str, str]:
    """Return the variables inherited from the worker; of all of them, those a job script can set."""
    env = inherited(inherit or False)
    return {name: value for name, value in env.items() if can_set(name)} if inherit is True else env


def shell_command(job: Job) -> str:
    """Return the command that opens a shell in a running Slurm job."""
    is_element = "_" in job.ref.id
    number = f"$(squeue -h -j {job.ref.id} -o %A)" if is_element else job.ref.id  # srun takes only numbers
    return f"srun --jobid {number} --overlap --pty bash"


def _instance(ti: RuntimeTaskInstanceProtocol, run_clears: int) -> TaskInstance:
    """Return the task instance, with the counters that change when a user clears it.

    Airflow raises ``max_tries`` of a cleared task, unless it is running; then `on_kill` marks the job directory.
    """
    return TaskInstance(
        ti.dag_id,
        ti.run_id,
        ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        clears=str(ti.max_tries),
        run_clears=run_clears,
        is_extra=ti.try_number > ti.max_tries + 1,
        try_number=ti.try_number,
    )
