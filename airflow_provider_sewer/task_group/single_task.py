"""A task, or some → Airflow tasks, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.task_group.dag_values import DagValues
from airflow_provider_sewer.task_group.defaults import GroupDefaults, folder_of_dag_file
from airflow_provider_sewer.task_group.operators import make_operator
from airflow_provider_sewer.task_group.task_ids import identifier
from airflow_provider_sewer.task_group.validation import check_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.task_group.defaults import Path


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
    operator_kwargs: Mapping[str, Any] | None = None,
) -> Callable[[], BaseOperator]:
    """Return a function that makes an Airflow task of a sewer task, each time it is called inside a DAG.

    :param task: the task.
    :param path_to_python: interpreter, if the task names none.
    :param env: environment variables, under those of the task.
    :param workdir: working directory, if the task names none.
    :param sewer_conn_id: a ``sewer`` connection for what is still not said.
    :param run_on: ``"local"``, which is the worker, or ``"slurm"``, for a task that names no place.
    :param slurm: parameters of Slurm jobs, under those of the task.
    :param run_dir: folder for the run directories of Slurm jobs.
    :param cluster: ``"slurm"``, ``"local"`` or ``"auto"``, for a task on Slurm.
    :param deferrable: whether a task on Slurm waits in the triggerer.
    :param operator_kwargs: arguments of the operator, under those of the task.
    :raises InvalidTask: when an argument cannot be used, naming it.
    """
    check_arguments({"sewer_conn_id": sewer_conn_id, "operator_kwargs": operator_kwargs})
    values = DagValues()
    around = GroupDefaults.checked(
        values,
        ExecutionSettings.checked(**values.settings(python=path_to_python, env=env, workdir=workdir)),
        {"slurm": slurm, "run_dir": run_dir, "cluster": cluster, "deferrable": deferrable},
        run_on,
        sewer_conn_id,
        operator_kwargs or {},
    )

    def make() -> BaseOperator:
        return make_operator(task, identifier(task.name), around, folder_of_dag_file())

    return make


def create_airflow_tasks(tasks: Iterable[Task], **kwargs: Any) -> Iterator[Callable[[], BaseOperator]]:
    """Return :func:`create_airflow_task` of each task, with the same arguments."""
    return (create_airflow_task(task, **kwargs) for task in tasks)
