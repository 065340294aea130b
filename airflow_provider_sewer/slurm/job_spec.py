"""Specification of a job: its task, its resources, and the limits on waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.formats import TASK
from airflow_provider_sewer.core.secret_detection import secret_texts
from airflow_provider_sewer.core.serialization import tasks_of_data, tasks_to_data
from airflow_provider_sewer.slurm.arrays.job_array import ArrayOptions
from airflow_provider_sewer.slurm.arrays.member_queue import ArrayMember
from airflow_provider_sewer.slurm.job_script import INSIDE, JobScript
from airflow_provider_sewer.slurm.monitor import WaitPolicy
from airflow_provider_sewer.slurm.sbatch_options import with_warning_signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.slurm_settings import SlurmSettings
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.slurm.attempts import TaskInstance
    from airflow_provider_sewer.slurm.job_directory import JobDirectory


class JobSpec(NamedTuple):
    """Specification of a job that runs a module or a function.

    :param instance: the task instance.
    :param task: the task.
    :param slurm: its settings, with every field set.
    :param secret_env: variables of the task's environment that are secret regardless of their names.
    :param grace: seconds between SIGTERM and SIGKILL when the job ends itself.
    :param expected: how many instances the mapped task has; 0 if that is not known.
    :param active: the variables that describe the interpreter's environment.
    :param other_secrets: further values to mask, such as secrets in other fields of an operator.
    :param controller_timeout: as for :class:`~airflow_provider_sewer.slurm.submission.Submission`.
    :param is_first_try: whether no earlier try belongs to its series.
    :param is_last_try: whether no try follows a failure.
    """

    instance: TaskInstance
    task: Task
    slurm: SlurmSettings
    secret_env: Mapping[str, str]
    grace: float
    expected: int = 0
    active: Sequence[str] = ()
    other_secrets: Sequence[str] = ()
    controller_timeout: float | None = None
    is_first_try: bool = False
    is_last_try: bool = False

    @property
    def label(self) -> str:
        """Return the readable first part of its job names."""
        name: str | None = self.slurm.slurm.get("name") or self.slurm.slurm.get("job_name")
        return name or f"{self.instance.dag_id}.{self.instance.task_id}"

    @property
    def shares_array(self) -> bool:
        """Return whether its job is to be an array task, where there are arrays."""
        return bool(self.slurm.array) and self.instance.map_index >= 0

    def secrets(self, call: Call) -> tuple[str, ...]:
        """Return the values to mask.

        :param call: the interpreter's command.
        """
        own = secret_texts(self.task.settings.env, [call.argv, self.slurm.slurm])
        return *self.secret_env.values(), *self.other_secrets, *own

    def member(self, path: str) -> ArrayMember:
        """Return the registration of an attempt for an array.

        :param path: its job directory.
        """
        resources = with_warning_signal(_resources_of(self.slurm))
        resources = {name: value for name, value in resources.items() if name not in INSIDE}
        options = ArrayOptions(self.label, resources, bool(self.slurm.requeue), self.slurm.max_pending_time)
        return ArrayMember(path, self.instance.map_index, self.expected, self.slurm.array_wait or 0.0, options)

    def script(self, name: str, call: Call, *, in_array: bool = False) -> JobScript:
        """Return its job script.

        :param name: the job's name.
        :param call: the interpreter's command.
        :param in_array: whether it is run by an array task.
        """
        return JobScript(
            name=name,
            call=call,
            python=self.task.settings.python,
            workdir=self.task.settings.workdir,
            env=self.task.settings.env,
            secret_env=self.secret_env,
            resources=_resources_of(self.slurm),
            requeue=bool(self.slurm.requeue),
            grace=self.grace,
            in_array=in_array,
            orphan_timeout=_orphan_timeout_of(self.slurm),
            active=self.active,
            other_secrets=self.other_secrets,
        )


def wait_policy_of(slurm: SlurmSettings) -> WaitPolicy:
    """Return the limits on waiting for a job."""
    return WaitPolicy(
        slurm.max_pending_time,
        slurm.fail_on_pending_reason,
        slurm.lost_after or 0.0,
        bool(slurm.requeue),
        slurm.poll_interval or 0.0,
    )


def save_task(directory: JobDirectory, task: Task) -> None:
    """Save the task of an attempt; of its settings only the working directory, for others may be secret.

    :raises InvalidTask: for a field that JSON cannot represent.
    :raises SlurmUnavailable: when it cannot be written.
    """
    data = tasks_to_data([task.with_settings(ExecutionSettings(workdir=task.settings.workdir))])
    data.pop("secrets", None)
    with directory.writing():
        directory.write_task(data)


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


def _orphan_timeout_of(slurm: SlurmSettings) -> float:
    """Return the seconds after which a job ends itself; 0 where it is meant to run without a monitor."""
    is_monitored = slurm.wait_for_completion and slurm.on_kill_action != "keep_job"
    if not is_monitored or not slurm.orphan_timeout:
        return 0.0
    # A monitor polls the job, and so touches its file, at least once in poll_interval.
    return max(slurm.orphan_timeout, 4 * (slurm.poll_interval or 0.0))


def _resources_of(slurm: SlurmSettings) -> dict[str, Any]:
    return {name: each for name, each in slurm.slurm.items() if name not in {"name", "job_name"} and each is not None}
