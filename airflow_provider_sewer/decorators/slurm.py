"""``@task.slurm_module``: a function returns what a module is called with as a Slurm job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.decorators.base import CalledOperator, decorator_of
from airflow_provider_sewer.operators.slurm import SlurmModuleOperator
from airflow_provider_sewer.slurm.job_directory import JobDirectory

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_provider_sewer.hooks.sewer import SewerHook
    from airflow_provider_sewer.slurm.arrays.pending_job import PendingJob
    from airflow_provider_sewer.slurm.job import Job
    from airflow_provider_sewer.slurm.job_result import JobResult
    from airflow_provider_sewer.slurm.job_runner import JobRunner


class SlurmModuleDecoratedOperator(CalledOperator, SlurmModuleOperator):
    """Runs a module or a function as a Slurm job with what a Python function returns.

    The function is called once for each job: not again where the task goes on after a deferral, nor where a retry takes
    the job up.
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
        task = self._prepared(lambda: self._sewer_task(context, None))
        run.planned = run.planned._replace(task=task.with_settings(run.planned.task.settings))

    def _sewer_task(self, context: Context, hook: SewerHook | None) -> Task:
        if self._has_called:
            return super()._sewer_task(context, hook)
        # What goes on with an attempt goes on with what that has noted.
        return Task(self.task_id, self.module, function=self.function).with_settings(self._settings(context, hook))

    def _store_job(self, context: Context, run: JobRunner, job: Job | PendingJob) -> None:
        self._show(run, job.directory)
        super()._store_job(context, run, job)

    def _collect(self, context: Context, run: JobRunner, ending: JobResult) -> Any:
        if ending.run_directory:
            self._show(run, JobDirectory(ending.run_directory))
        return super()._collect(context, run, ending)

    def _show(self, run: JobRunner, directory: JobDirectory) -> None:
        """Have Airflow show what the job was begun with, whichever try that was."""
        task = run.saved_task(directory)
        self._take(task.parameters_and_flags or task.kwargs)


def slurm_module_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make an Airflow task of a function that returns what a module is called with: ``@task.slurm_module(module=…)``.

    As :func:`~airflow_provider_sewer.decorators.module.python_module_task`, but the module runs as a Slurm job. The
    function is called once for each job, before it is submitted.

    :param python_callable: the function.
    :param multiple_outputs: whether each key of the module's result becomes an XCom of its own as well.
    :param kwargs: all arguments of :class:`~airflow_provider_sewer.operators.slurm.SlurmModuleOperator` but
        ``parameters_and_flags`` and ``op_kwargs``.
    """
    return decorator_of(SlurmModuleDecoratedOperator, python_callable, multiple_outputs, kwargs)
