"""What an attempt was begun with, noted in its run directory.

A later try may say something else: a template is filled in anew, a function is called anew. What goes on with the
attempt goes on with what the job was told, above all with the paths of its products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import SlurmUnavailable
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.formats import TASK
from airflow_provider_sewer.core.serialization import tasks_of_data, tasks_to_data

if TYPE_CHECKING:
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.slurm.job_directory import JobDirectory


def save_task(directory: JobDirectory, task: Task) -> None:
    """Note what an attempt is begun with; of its settings only the working directory, for others may be secret.

    :raises InvalidTask: for what JSON cannot say, naming the field.
    :raises SlurmUnavailable: when it cannot be written.
    """
    try:
        directory.write_task(tasks_to_data([task.with_settings(ExecutionSettings(workdir=task.settings.workdir))]))
    except OSError as error:
        raise SlurmUnavailable(
            f"run_dir: cannot write into {directory.path!r}: {error.strerror}", run_directory=directory.path
        ) from None


def load_task(directory: JobDirectory, now: Task) -> Task:
    """Return what an attempt was begun with; the task as it is now where nothing was submitted.

    :param now: the task as this try says it, whose settings are taken but for the working directory.
    :raises UnreadableRecord: when another version has noted it, or it is damaged or was removed.
    """
    noted = directory.read_task()
    if noted is None and directory.read_attempt() is None:
        return now
    with TASK.reading(directory.task):
        (task,) = tasks_of_data(noted, directory.task)
    return task.with_settings(now.settings._replace(workdir=task.settings.workdir))
