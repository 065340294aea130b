"""A workflow file → a TaskGroup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.settings import Settings, under
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.readers.files import load_workflow
from airflow_provider_sewer.task_group.around import Around, folder_of_dag_file
from airflow_provider_sewer.task_group.expansion import expand
from airflow_provider_sewer.task_group.identifiers import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.task_group.around import Path


def sewer_task_group(
    workflow_file: Path,
    *,
    group_id: str | None = None,
    workflow: str | None = None,
    jobs: str | None = None,
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
    default_args: Mapping[str, Any] | None = None,
    read_with_interpreter: bool = False,
) -> TaskGroup:
    """Expand a workflow of a workflow file into a TaskGroup; call it inside a DAG.

    What the file says of a task wins over what is said here, and that over the connection. Relative
    paths given here are taken from the folder of the DAG file.

    :param workflow_file: the workflow file: Python, or stages in YAML.
    :param group_id: id of the group; the workflow's name if not said.
    :param workflow: name of the workflow, where the file holds several.
    :param jobs: for stages: the module that has their functions, if the file names none.
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
    :param default_args: default arguments of the group, as Airflow has them.
    :param read_with_interpreter: have the file read by ``python``, with ``env`` and ``inherit_env``: it imports what
        only that interpreter has (see :mod:`airflow_provider_sewer.runners.foreign_reader`).
    :raises SewerError: when the file, a task or an argument is wrong; with file and line.
    """
    dag_folder = folder_of_dag_file()
    settings = Settings.checked(python=python, env=env, inherit_env=inherit_env, workdir=workdir)
    file = under(dag_folder, os.path.expanduser(workflow_file))
    if read_with_interpreter:
        from airflow_provider_sewer.runners.foreign_reader import read_workflow

        loaded = read_workflow(file, workflow, _reader(settings, dag_folder, jobs))
    else:
        loaded = load_workflow(file, workflow, jobs=jobs)
    around = Around.checked(
        settings,
        {"slurm": slurm, "run_dir": run_dir, "cluster": cluster, "deferrable": deferrable},
        run_on,
        sewer_conn_id,
        operator_kwargs or {},
    )
    group = TaskGroup(
        group_id=identifier(group_id or loaded.name),
        group_display_name=group_id or loaded.name,
        tooltip=loaded.doc,
        doc_md=f"{loaded.doc}\n",  # the line break keeps Airflow from taking "… notes.md" for a file to read
        default_args=dict(default_args or {}),  # type: ignore[arg-type]  # attrs and deepcopy
    )
    with group:
        # The edges that come of paths depend on where these are taken from.
        expand(loaded, loaded.with_defaults(Settings(workdir=around.settings.workdir)), group, around, dag_folder)
    return group


def _reader(settings: Settings, dag_folder: str, jobs: str | None) -> Settings:
    """Return what a file is read with: of what its tasks get, what is known before anything runs."""
    if jobs is not None:
        raise InvalidTask("jobs: this is for stages in YAML, which import nothing; leave out read_with_interpreter")
    if settings.python is None or is_template(settings.python):
        said = "not said" if settings.python is None else f"{settings.python!r}, which is known only when a task runs"
        raise InvalidTask(f"read_with_interpreter: python is {said}; name the interpreter that reads the file")
    env = {name: value for name, value in settings.env.items() if not is_template(value)}
    return settings.map_paths(lambda path: under(dag_folder, path))._replace(env=env)
