"""Task of an attempt, saved in its job directory.

A later try may have another task: templates are rendered again, functions are called again. A try that reattaches to
the attempt uses the saved task, above all its paths of products.
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
    """Save the task of an attempt; of its settings only the working directory, for others may be secret.

    :raises InvalidTask: for a field that JSON cannot represent.
    :raises SlurmUnavailable: when it cannot be written.
    """
    try:
        directory.write_task(tasks_to_data([task.with_settings(ExecutionSettings(workdir=task.settings.workdir))]))
    except OSError as error:
        raise SlurmUnavailable(
            f"run_dir: cannot write into {directory.path!r}: {error.strerror}", run_directory=directory.path
        ) from None


def load_task(directory: JobDirectory, now: Task) -> Task:
    """Return the saved task of an attempt; the present task where nothing was submitted.

    :param now: the present task, whose settings are used except for the working directory.
    :raises UnreadableRecord: when another version has saved it, or it is damaged or was removed.
    """
    saved = directory.read_task()
    if saved is None and directory.read_attempt() is None:
        return now
    with TASK.reading(directory.task):
        (task,) = tasks_of_data(saved, directory.task)
    return task.with_settings(now.settings._replace(workdir=task.settings.workdir))
