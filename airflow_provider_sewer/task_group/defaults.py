"""What is said around tasks: it holds where they say nothing themselves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import DAG
from airflow.sdk.definitions._internal.contextmanager import DagContext

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.secret_detection import exposed
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.task import checked_run_on
from airflow_provider_sewer.operators.module import warn_of_secret
from airflow_provider_sewer.task_group.operator_fields import split_operator_kwargs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.task_group.dag_values import DagValues
    from airflow_provider_sewer.task_group.overrides import Override
    from airflow_provider_sewer.task_group.task_converter import TaskConverter

#: What a DAG file can give for a path.
Path = str | os.PathLike[str]


class GroupDefaults(NamedTuple):
    """What is said around tasks.

    :param settings: interpreter, environment and working directory.
    :param slurm: what is said of Slurm jobs.
    :param run_on: where they run.
    :param sewer_conn_id: the connection.
    :param operator_kwargs: arguments that all operators know.
    :param values: what is known only when the tasks run.
    :param task_converter: has the last word on each operator.
    :param overrides: what is said of single tasks, by their names; the tasks have it already.
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
        """Make it of what a person wrote.

        :raises InvalidTask: when some of it cannot be used, naming it.
        """
        for_slurm, for_all = split_operator_kwargs(operator_kwargs)
        said = {field: value for field, value in slurm_fields.items() if value is not None}
        slurm = SlurmSettings.checked(**values.settings(**{**said, **for_slurm}))
        for what in exposed({}, (), {}, slurm.slurm):
            warn_of_secret(f"{calling_line()}: {what}", calling_line().file)
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
    """Return the folder of the file whose DAG is being made.

    :raises InvalidWorkflow: outside of a DAG.
    """
    # Airflow has no public way to ask for the DAG that is being made before there is a task in it.
    dag = DagContext.get_current()
    if not isinstance(dag, DAG):
        raise InvalidWorkflow("tasks are made inside a DAG: with DAG(…):, or in a function under @dag", calling_line())
    return os.path.dirname(os.path.abspath(dag.fileloc))
