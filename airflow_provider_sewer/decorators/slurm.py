"""Task decorator ``@task.slurm_module``, which runs a module as a Slurm job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.decorators.called_operator import CalledOperator, decorator_of
from airflow_provider_sewer.operators.module import failing_at_once
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.slurm.job_directory import JobDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_provider_sewer.hooks.sewer import SewerHook
    from airflow_provider_sewer.slurm.job import Job, PendingJob
    from airflow_provider_sewer.slurm.job_result import JobResult
    from airflow_provider_sewer.slurm.job_runner import JobRunner


class SlurmModuleDecoratedOperator(CalledOperator, SlurmModuleOperator):
    """Operator that runs a module or function as a Slurm job with arguments returned by a Python function.

    The function is called once per job; not again when the task resumes after a deferral or a retry reattaches to the
    job.
    """

    custom_operator_name = "@task.slurm_module"
    template_fields: Sequence[str] = tuple(
        dict.fromkeys([*DecoratedOperator.template_fields, *SlurmModuleOperator.template_fields])
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **SlurmModuleOperator.template_fields_renderers,
        **DecoratedOperator.template_fields_renderers,
    }

    def _prepare_attempt(self, context: Context, run: JobRunner) -> None:
        self._call(context)
        with failing_at_once():
            task = self._sewer_task(context, None)
        run.use(task.with_settings(run.spec.task.settings))

    def _sewer_task(self, context: Context, hook: SewerHook | None) -> Task:
        if self._has_called:
            return super()._sewer_task(context, hook)
        # Reattaching uses the arguments recorded by the attempt.
        return Task(self.task_id, self.module, function=self.function).with_settings(
            self._settings(context["dag"], hook)
        )

    def _store_job(self, context: Context, run: JobRunner, job: Job | PendingJob) -> None:
        self._show(run, job.directory)
        super()._store_job(context, run, job)

    def _collect(self, context: Context, run: JobRunner, job_result: JobResult) -> Any:
        if job_result.run_directory:
            self._show(run, JobDirectory(job_result.run_directory))
        return super()._collect(context, run, job_result)

    def _show(self, run: JobRunner, directory: JobDirectory) -> None:
        """Show the arguments recorded for the job in Airflow, whichever try submitted it."""
        task = run.runner_of(directory).task
        self._store_returned(task.parameters_and_flags or task.kwargs)


def slurm_module_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Create an Airflow task from a function that returns a module's arguments: ``@task.slurm_module(module=…)``.

    Like :func:`~airflow_provider_sewer.decorators.module.python_module_task`, but the module runs as a Slurm job. The
    function is called once per job, before its submission.

    :param python_callable: the function.
    :param multiple_outputs: whether each key of the module's result also becomes an XCom of its own.
    :param kwargs: all arguments of :class:`~airflow_provider_sewer.operators.slurm.SlurmModuleOperator` but
        ``parameters_and_flags`` and ``op_kwargs``.
    """
    return decorator_of(SlurmModuleDecoratedOperator, python_callable, multiple_outputs, kwargs)
