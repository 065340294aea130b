"""Creation of single Airflow tasks from sewer tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.task_group.argument_checks import check_arguments
from airflow_provider_sewer.task_group.dag_values import DagValues
from airflow_provider_sewer.task_group.group_defaults import GroupDefaults, folder_of_dag_file
from airflow_provider_sewer.task_group.operator_creation import make_operator
from airflow_provider_sewer.task_group.shared_fields import SharedFields
from airflow_provider_sewer.task_group.subgroups import identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.task_group.group_defaults import Path


def create_airflow_task(
    task: Task,
    path_to_python: Path | None = None,
    env: Mapping[str, str] | None = None,
    workdir: Path | None = None,
    *,
    sewer_conn_id: str | None = None,
    run_on: str | None = None,
    slurm: Mapping[str, Any] | None = None,
    run_dir: Path | None = None,
    cluster: str | None = None,
    deferrable: bool | None = None,
    retry_with: Mapping[str, Any] | None = None,
    operator_kwargs: Mapping[str, Any] | None = None,
) -> Callable[[], BaseOperator]:
    """Return a function that creates an Airflow task from a sewer task on each call inside a DAG.

    :param task: the task.
    :param path_to_python: default interpreter.
    :param env: environment variables; those of the task take precedence.
    :param workdir: default working directory.
    :param sewer_conn_id: ``sewer`` connection for settings that are still unset.
    :param run_on: ``"local"`` (the worker) or ``"slurm"``; the default.
    :param slurm: parameters of Slurm jobs; those of the task take precedence.
    :param run_dir: base folder of the job directories of Slurm jobs.
    :param cluster: ``"slurm"``, ``"local"`` or ``"auto"``, for a task on Slurm.
    :param deferrable: whether a task on Slurm waits in the triggerer.
    :param retry_with: changes of the request of a retry, by the error of the attempt before (see
        :mod:`airflow_provider_sewer.core.retry_requests`); merged with those of the task error by error.
    :param operator_kwargs: arguments of the operator; those of the task take precedence.
    :raises InvalidTask: when an argument is invalid, naming it.
    """
    check_arguments({"sewer_conn_id": sewer_conn_id, "operator_kwargs": operator_kwargs})
    values = DagValues()
    defaults = GroupDefaults.checked(
        values,
        ExecutionSettings.checked(**values.settings(python=path_to_python, env=env, workdir=workdir)),
        {"slurm": slurm, "run_dir": run_dir, "cluster": cluster, "deferrable": deferrable, "retry_with": retry_with},
        run_on,
        sewer_conn_id,
        operator_kwargs or {},
    )

    def make() -> BaseOperator:
        return make_operator(task, identifier(task.name), SharedFields(defaults, folder_of_dag_file()))

    return make


def create_airflow_tasks(tasks: Iterable[Task], **kwargs: Any) -> Iterator[Callable[[], BaseOperator]]:
    """Return :func:`create_airflow_task` of each task, with the same arguments."""
    return (create_airflow_task(task, **kwargs) for task in tasks)
