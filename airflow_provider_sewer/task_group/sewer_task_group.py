"""Creation of a TaskGroup from a workflow file."""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.execution_settings import ExecutionSettings, resolve_relative
from airflow_provider_sewer.core.masking import masking_errors
from airflow_provider_sewer.core.secret_detection import secret_arguments
from airflow_provider_sewer.core.selection import selected
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.loaders.workflow_files import load_workflow
from airflow_provider_sewer.task_group.argument_checks import check_default_args
from airflow_provider_sewer.task_group.builder import expand
from airflow_provider_sewer.task_group.dag_values import DagValues
from airflow_provider_sewer.task_group.group_defaults import GroupDefaults, folder_of_dag_file
from airflow_provider_sewer.task_group.mapped_group import MappableGroup, is_mapped
from airflow_provider_sewer.task_group.overrides import (
    apply_overrides,
    checked_overrides,
    reject_partly_overridden_mapped_tasks,
)
from airflow_provider_sewer.task_group.subgroups import identifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.core.selection import Texts
    from airflow_provider_sewer.task_group.group import SewerTaskGroup
    from airflow_provider_sewer.task_group.group_defaults import Path
    from airflow_provider_sewer.task_group.operator_creation import TaskConverter


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
    retry_with: Mapping[str, Any] | None = None,
    operator_kwargs: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    task_converter: TaskConverter | None = None,
    default_args: Mapping[str, Any] | None = None,
    read_with_interpreter: bool = False,
) -> SewerTaskGroup:
    """Expand a workflow into a TaskGroup; call it inside a DAG.

    Precedence, from high to low: ``overrides``, the task in the workflow file, the other arguments, the connection.
    Relative paths are resolved against the folder of the DAG file.

    :param workflow_file: the workflow file: Python, or stages in YAML.
    :param group_id: id of the group; defaults to the workflow's name.
    :param prefix_group_id: whether task ids are prefixed with the ids of the group and of its subgroups.
    :param workflow: name of the workflow, if the file defines several.
    :param arguments: arguments of the workflow function. It can pass on run-time values such as an XComArg, whole or
        in a string, but cannot use them in conditions, loops or arithmetic.
    :param jobs: for stages: module with the stage functions, if the file does not name it.
    :param select: tasks to include, e.g. ``"train+"`` (see :mod:`airflow_provider_sewer.core.selection`); default: all.
        The selected tasks keep their order.
    :param exclude: tasks to leave out of the selection.
    :param sewer_conn_id: ``sewer`` connection of all tasks.
    :param python: default interpreter.
    :param env: environment variables; those of a task take precedence.
    :param inherit_env: ``True``, or names, to inherit more than the short list.
    :param workdir: default working directory.
    :param run_on: ``"local"`` (the worker) or ``"slurm"``; the default for tasks.
    :param slurm: parameters of Slurm jobs; those of a task take precedence.
    :param run_dir: base folder of the job directories of Slurm jobs.
    :param cluster: ``"slurm"``, ``"local"`` or ``"auto"``, for tasks on Slurm.
    :param deferrable: whether tasks on Slurm wait in the triggerer.
    :param retry_with: changes of the request of a retry, by the error of the attempt before (see
        :mod:`airflow_provider_sewer.core.retry_requests`); merged with those of a task error by error.
    :param operator_kwargs: arguments of every operator (pool, queue, retries, …); those of a task take precedence.
        Arguments of the Slurm operator only (poll_interval, requeue, …) apply to tasks on Slurm.
    :param overrides: by task name, glob or tag: operator arguments, ``python``, ``env``, ``inherit_env``, ``workdir``,
        ``run_on``, ``slurm`` and ``retry_with``. Later entries take precedence.
    :param task_converter: function that takes a :class:`~airflow_provider_sewer.core.task.Task` and its operator
        arguments. It returns arguments or an operator (for a mapped task, ``Operator.partial(…)``).
    :param default_args: default arguments of the group, as in Airflow.
    :param read_with_interpreter: whether ``python`` loads the file, with ``env`` and ``inherit_env``, because it
        imports packages of that interpreter (see :mod:`airflow_provider_sewer.loaders.external.reader`).
    :raises SewerError: when the file, a task or an argument is invalid; with file and line.
    """
    check_default_args(default_args or {})
    dag_folder = folder_of_dag_file()
    values = DagValues()
    given = values.arguments(arguments)  # first, so that messages use the arguments' own names
    settings = ExecutionSettings.checked(
        **values.settings(python=python, env=env, inherit_env=inherit_env, workdir=workdir)
    )
    file = resolve_relative(dag_folder, os.path.expanduser(workflow_file))
    defaults = GroupDefaults.checked(
        values,
        settings,
        {"slurm": slurm, "run_dir": run_dir, "cluster": cluster, "deferrable": deferrable, "retry_with": retry_with},
        run_on,
        sewer_conn_id,
        operator_kwargs or {},
        task_converter,
    )
    with gc_paused(), masking_errors(secret_arguments(given)):
        if read_with_interpreter:
            from airflow_provider_sewer.loaders.external.reader import read_workflow

            loaded = read_workflow(file, workflow, _load_settings(settings, dag_folder, jobs), given)
        else:
            loaded = load_workflow(file, workflow, jobs=jobs, arguments=given)
        resolved = loaded.with_workdir(defaults.settings.workdir)
        task_overrides = checked_overrides(overrides or {}, resolved, values, defaults.run_on)
        if task_overrides:
            defaults = defaults._replace(overrides=task_overrides)
            loaded = apply_overrides(loaded, resolved, task_overrides)
            resolved = loaded.with_workdir(defaults.settings.workdir)
        selection = selected(resolved, select, exclude)
        group = values.new_group(
            group_id=identifier(group_id or loaded.name),
            group_display_name=group_id or loaded.name,
            prefix_group_id=prefix_group_id,
            tooltip=loaded.doc,
            doc_md=f"{loaded.doc}\n",  # without the line break, Airflow would open a doc ending in ".md" as a file
            default_args=dict(default_args or {}),
        )
        if not is_mapped(group):
            reject_partly_overridden_mapped_tasks(selection, task_overrides)
        with group:
            group.set_task_ids(expand(loaded, selection, group, defaults, dag_folder))
        return group


def _load_settings(settings: ExecutionSettings, dag_folder: str, jobs: str | None) -> ExecutionSettings:
    """Return the settings for loading the file: the group's settings without templates."""
    if jobs is not None:
        raise InvalidTask("jobs is for stages in YAML, which import nothing; remove read_with_interpreter")
    if settings.python is None or is_template(settings.python):
        problem = "python is not set" if settings.python is None else f"python={settings.python!r} is a run-time value"
        raise InvalidTask(f"read_with_interpreter: {problem}; set python to the interpreter that loads the file")
    env = {name: value for name, value in settings.env.items() if not is_template(value)}
    return settings.map_paths(lambda path: resolve_relative(dag_folder, path))._replace(env=env)


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable garbage collection while many long-lived objects are created.

    For each few hundred objects, Python would search the youngest ones, and sometimes all objects, including those of
    Airflow. That takes longer than the creation of a thousand tasks.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
