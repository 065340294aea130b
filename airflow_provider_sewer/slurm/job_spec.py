"""A task that is to run as a job: what it runs, what it asks for, and how patiently it is followed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.secret_detection import secret_texts
from airflow_provider_sewer.slurm.arrays.job_array import ArrayOptions
from airflow_provider_sewer.slurm.arrays.member_queue import ArrayMember
from airflow_provider_sewer.slurm.job_script import INSIDE, JobScript, with_warning_signal
from airflow_provider_sewer.slurm.monitor import WaitPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.slurm_settings import SlurmSettings
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.slurm.attempts import TaskInstance


class JobSpec(NamedTuple):
    """A task whose module or function is to run as a job.

    :param instance: the task instance it is for.
    :param task: what is run and where, and what it makes.
    :param slurm: how it runs on Slurm; every setting said.
    :param secret_env: variables of the task's environment that are secret whatever their names are.
    :param grace: seconds between SIGTERM and SIGKILL when the job ends itself.
    :param runs_before: which runs of the tasks before it this one follows, where they tell so themselves.
    :param expected: how many instances the mapped task has; 0 if that is not known.
    :param active: the variables that are to tell of the interpreter's environment.
    """

    instance: TaskInstance
    task: Task
    slurm: SlurmSettings
    secret_env: Mapping[str, str]
    grace: float
    runs_before: Mapping[str, str] | None = None
    expected: int = 0
    active: Sequence[str] = ()

    @property
    def label(self) -> str:
        """Return what its jobs are called, before the part that makes each name unique."""
        said: str | None = self.slurm.slurm.get("name") or self.slurm.slurm.get("job_name")
        return said or f"{self.instance.dag_id}.{self.instance.task_id}"

    @property
    def shares_array(self) -> bool:
        """Tell whether it is to be an element of an array, where there are arrays."""
        return bool(self.slurm.array) and self.instance.map_index >= 0

    def secrets(self, call: Call) -> tuple[str, ...]:
        """Return the values that must not be shown.

        :param call: what the interpreter is asked to run.
        """
        return *self.secret_env.values(), *secret_texts(self.task.settings.env, call.argv, self.slurm.slurm)

    def member(self, path: str) -> ArrayMember:
        """Return what is said of an attempt when it registers for an array.

        :param path: its run directory.
        """
        resources = with_warning_signal(self._resources)
        resources = {name: value for name, value in resources.items() if name not in INSIDE}
        wants = ArrayOptions(self.label, resources, bool(self.slurm.requeue), self.slurm.max_pending_time)
        return ArrayMember(path, self.instance.map_index, self.expected, self.slurm.array_wait or 0.0, wants)

    def script(self, name: str, call: Call) -> JobScript:
        """Return its job script.

        :param name: the job's name.
        :param call: what the interpreter is asked to run.
        """
        return JobScript(
            name=name,
            call=call,
            python=self.task.settings.python,
            workdir=self.task.settings.workdir,
            env=self.task.settings.env,
            secret_env=self.secret_env,
            resources=self._resources,
            requeue=bool(self.slurm.requeue),
            grace=self.grace,
            orphan_timeout=self._orphan_timeout,
            active=self.active,
        )

    @property
    def _orphan_timeout(self) -> float:
        """Return the seconds after which the job ends itself; 0 where it is meant to run without a follower."""
        is_followed = self.slurm.wait_for_completion and self.slurm.on_kill_action != "keep_job"
        if not is_followed or not self.slurm.orphan_timeout:
            return 0.0
        # A follower looks at the job, and so touches its file, at least once in poll_interval.
        return max(self.slurm.orphan_timeout, 4 * (self.slurm.poll_interval or 0.0))

    @property
    def _resources(self) -> dict[str, Any]:
        said = self.slurm.slurm.items()
        return {name: value for name, value in said if name not in {"name", "job_name"} and value is not None}


def wait_policy_of(slurm: SlurmSettings) -> WaitPolicy:
    """Return how long, and for what, a job is waited for."""
    return WaitPolicy(
        slurm.max_pending_time,
        slurm.fail_on_pending_reason,
        slurm.lost_after or 0.0,
        bool(slurm.requeue),
        slurm.poll_interval or 0.0,
    )
