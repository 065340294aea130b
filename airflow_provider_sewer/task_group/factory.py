"""A workflow file → a TaskGroup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.execution_settings import ExecutionSettings, resolve_relative
from airflow_provider_sewer.core.garbage import gc_paused
from airflow_provider_sewer.core.selection import selected
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.loaders.workflow_files import load_workflow
from airflow_provider_sewer.task_group.builder import expand
from airflow_provider_sewer.task_group.dag_values import DagValues, is_mapped
from airflow_provider_sewer.task_group.defaults import GroupDefaults, folder_of_dag_file
from airflow_provider_sewer.task_group.mapped_group import MappableGroup
from airflow_provider_sewer.task_group.operator_fields import check_default_args
from airflow_provider_sewer.task_group.overrides import apply_overrides, checked_overrides, refuse_parts_of_mapped_tasks
from airflow_provider_sewer.task_group.task_ids import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.core.selection import Texts
    from airflow_provider_sewer.task_group.defaults import Path
    from airflow_provider_sewer.task_group.group import SewerTaskGroup
    from airflow_provider_sewer.task_group.task_converter import TaskConverter


@MappableGroup
def sewer_task_group(
    workflow_file: Path,
    *,
    group_id: str | None = None,
    prefix_group_id: bool = True,
    workflow: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    jobs: str | None = None,
    select: Texts = None,
    exclude: Texts = None,
    sewer_conn_id: str | None = None,
    python: Path | None = None,
    env: Mapping[str, str] | None = None,
    inherit_env: Inherit | None = None,
    workdir: Path | None = None,
    run_on: str | None = None,
    slurm: Mapping[str, Any] | None = None,
    run_dir: Path | None = None,
    cluster: str | None = None,
    deferrable: bool | None = None,
    operator_kwargs: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    task_converter: TaskConverter | None = None,
    default_args: Mapping[str, Any] | None = None,
    read_with_interpreter: bool = False,
) -> SewerTaskGroup:
    """Expand a workflow of a workflow file into a TaskGroup; call it inside a DAG.

    What ``overrides`` say of a task wins over what the file says of it, that over what else is said here, and that over
    the connection. Relative paths given here are taken from the folder of the DAG file.

    :param workflow_file: the workflow file: Python, or stages in YAML.
    :param group_id: id of the group; the workflow's name if not said.
    :param prefix_group_id: whether the ids of its tasks begin with its id, and with those of the groups in it.
    :param workflow: name of the workflow, where the file holds several.
    :param arguments: what the workflow's function is called with. What is known only when the tasks run, such as an
        XComArg, can be passed on there, whole or in a text, but not decide of what the workflow is made.
    :param jobs: for stages: the module that has their functions, if the file names none.
    :param select: which tasks, such as ``"train+"`` (see :mod:`airflow_provider_sewer.core.selection`); all if not
        said. Those that are left keep their order.
    :param exclude: which of these not.
    :param sewer_conn_id: a ``sewer`` connection for all its tasks.
    :param python: interpreter of the tasks that name none.
    :param env: environment variables, under those of the tasks.
    :param inherit_env: ``True``, or names, to inherit more than the short list.
    :param workdir: working directory of the tasks that name none.
    :param run_on: ``"local"``, which is the worker, or ``"slurm"``, for the tasks that name no place.
    :param slurm: parameters of Slurm jobs, under those of the tasks.
    :param run_dir: folder for the run directories of Slurm jobs.
    :param cluster: ``"slurm"``, ``"local"`` or ``"auto"``, for tasks on Slurm.
    :param deferrable: whether tasks on Slurm wait in the triggerer.
    :param operator_kwargs: arguments of every operator (pool, queue, retries, …), under those of the tasks. Those
        that only the operator for Slurm knows (poll_interval, requeue, …) reach the tasks on Slurm.
    :param overrides: for names, globs and tags of tasks what is to be said of these instead: arguments of operators,
        and ``python``, ``env``, ``inherit_env``, ``workdir``, ``run_on`` and ``slurm``. The later wins.
    :param task_converter: a function that takes a :class:`~airflow_provider_sewer.core.task.Task` and the arguments of
        its operator, and returns arguments, or an operator that it has made of them (for a mapped task,
        ``Operator.partial(…)``).
    :param default_args: default arguments of the group, as Airflow has them.
    :param read_with_interpreter: have the file read by ``python``, with ``env`` and ``inherit_env``: it imports what
        only that interpreter has (see :mod:`airflow_provider_sewer.loaders.external.client`).
    :raises SewerError: when the file, a task or an argument is wrong; with file and line.
    """
    check_default_args(default_args or {})
    dag_folder = folder_of_dag_file()
    values = DagValues()
    given = values.arguments(arguments)  # before all else, so that messages call them by their own names
    settings = ExecutionSettings.checked(
        **values.settings(python=python, env=env, inherit_env=inherit_env, workdir=workdir)
    )
    file = resolve_relative(dag_folder, os.path.expanduser(workflow_file))
    around = GroupDefaults.checked(
        values,
        settings,
        {"slurm": slurm, "run_dir": run_dir, "cluster": cluster, "deferrable": deferrable},
        run_on,
        sewer_conn_id,
        operator_kwargs or {},
        task_converter,
    )
    with gc_paused():
        if read_with_interpreter:
            from airflow_provider_sewer.loaders.external.client import read_workflow

            loaded = read_workflow(file, workflow, _reader(settings, dag_folder, jobs), given)
        else:
            loaded = load_workflow(file, workflow, jobs=jobs, arguments=given)
        # The edges that come of paths depend on where these are taken from.
        from_here = ExecutionSettings(workdir=around.settings.workdir)
        settled = loaded.with_defaults(from_here)
        said = checked_overrides(overrides or {}, settled, values, around.run_on)
        if said:
            around = around._replace(overrides=said)
            loaded = apply_overrides(loaded, settled, said)
            settled = loaded.with_defaults(from_here)
        wanted = selected(settled, select, exclude)
        group = values.new_group(
            group_id=identifier(group_id or loaded.name),
            group_display_name=group_id or loaded.name,
            prefix_group_id=prefix_group_id,
            tooltip=loaded.doc,
            doc_md=f"{loaded.doc}\n",  # the line break keeps Airflow from taking "… notes.md" for a file to read
            default_args=dict(default_args or {}),
        )
        if not is_mapped(group):
            refuse_parts_of_mapped_tasks(wanted, said)
        with group:
            group.take(expand(loaded, wanted, group, around, dag_folder))
        return group


def _reader(settings: ExecutionSettings, dag_folder: str, jobs: str | None) -> ExecutionSettings:
    """Return what a file is read with: of what its tasks get, what is known before anything runs."""
    if jobs is not None:
        raise InvalidTask("jobs: this is for stages in YAML, which import nothing; leave out read_with_interpreter")
    if settings.python is None or is_template(settings.python):
        said = "not said" if settings.python is None else f"{settings.python!r}, which is known only when a task runs"
        raise InvalidTask(f"read_with_interpreter: python is {said}; name the interpreter that reads the file")
    env = {name: value for name, value in settings.env.items() if not is_template(value)}
    return settings.map_paths(lambda path: resolve_relative(dag_folder, path))._replace(env=env)
