"""Defaults that a task group applies to its tasks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import DAG
from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.secret_detection import exposed
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.task_fields import checked_run_on
from airflow_provider_sewer.operators.secret_warnings import warn_of_secret
from airflow_provider_sewer.task_group.argument_checks import split_operator_kwargs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.task_group.dag_values import DagValues
    from airflow_provider_sewer.task_group.operator_creation import TaskConverter
    from airflow_provider_sewer.task_group.overrides import Override

#: Types accepted for a path.
Path = str | os.PathLike[str]


class GroupDefaults(NamedTuple):
    """Defaults that a task group applies to its tasks.

    :param settings: interpreter, environment and working directory.
    :param slurm: settings of Slurm jobs.
    :param run_on: where the tasks run.
    :param sewer_conn_id: the connection.
    :param operator_kwargs: arguments that every operator accepts.
    :param values: run-time values of the DAG.
    :param task_converter: may change or replace each operator.
    :param overrides: overrides by task name, already applied to the tasks.
    """

    settings: ExecutionSettings
    slurm: SlurmSettings
    run_on: str | None
    sewer_conn_id: str | None
    operator_kwargs: Mapping[str, Any]
    values: DagValues
    task_converter: TaskConverter | None = None
    overrides: Mapping[str, Override] = {}

    @classmethod
    def checked(
        cls,
        values: DagValues,
        settings: ExecutionSettings,
        slurm_fields: Mapping[str, Any],
        run_on: str | None,
        sewer_conn_id: str | None,
        operator_kwargs: Mapping[str, Any],
        task_converter: TaskConverter | None = None,
    ) -> GroupDefaults:
        """Validate the arguments given in a DAG file.

        :raises InvalidTask: when a value is invalid, naming its field.
        """
        for_slurm, for_all = split_operator_kwargs(operator_kwargs)
        given = {field: value for field, value in slurm_fields.items() if value is not None}
        slurm = SlurmSettings.checked(**values.settings(**{**given, **for_slurm}))
        for secret in exposed({}, (), {}, slurm.slurm):
            warn_of_secret(f"{calling_line()}: {secret}", calling_line().file)
        return cls(
            settings,
            slurm,
            checked_run_on(run_on),
            sewer_conn_id,
            for_all,
            values,
            task_converter,
        )


def folder_of_dag_file() -> str:
    """Return the folder of the current DAG's file.

    :raises InvalidWorkflow: outside of a DAG.
    """
    # Airflow has no public API for the current DAG before a task is added to it.
    dag = DagContext.get_current()
    if not isinstance(dag, DAG):
        raise InvalidWorkflow(
            "no current DAG; create tasks inside 'with DAG(…):' or a function decorated with @dag", calling_line()
        )
    return os.path.dirname(os.path.abspath(dag.fileloc))
