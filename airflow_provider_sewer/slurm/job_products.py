"""The products of a task that runs as a job: begun where it is submitted, put in place where its end is seen.

What is noted in between lies in the run directory, so that it makes no difference whether one process does both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.formats import PRODUCTS
from airflow_provider_sewer.core.paths import is_relative
from airflow_provider_sewer.core.staleness import Fingerprint, Inputs
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.task_runner import TaskRunner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.slurm.job_directory import JobDirectory


class JobProducts:
    """The products of one attempt.

    :param task: the task.
    :param directory: the run directory of the attempt.
    :param run: what knows what the task is given and made from, where that is more than the task says itself.
    :param runs_before: which runs of the tasks before it this one follows, where ``run`` does not know.
    :param dag_run: DAG and run that it is part of, if it is.
    """

    def __init__(
        self,
        task: Task,
        directory: JobDirectory,
        run: TaskRunner | None = None,
        runs_before: Mapping[str, str] | None = None,
        dag_run: Sequence[str] | None = None,
    ) -> None:
        self._task = task
        self._directory = directory
        self._run = run or TaskRunner(task, {})
        if runs_before is not None:
            self._run.runs_before = runs_before
        self._run.dag_run = dag_run

    def begin(self, attempt: str) -> Call:
        """Make the folders that the products go to, and return what the job is to run.

        :param attempt: the name of the attempt.
        :raises InvalidTask: when it cannot be told where a product is to be.
        :raises ProductError: when a dependency is not there, or a folder cannot be made.
        """
        require_workdir(self._task)
        made_from = self._run.inputs()
        making = self._making(attempt)
        making.begin()
        if self._task.products:
            self._directory.write_products(
                {"attempt": attempt, "before": making.snapshot(), "made_from": made_from.to_data()}
            )
        return self._run.call(making)

    def commit(self, result: Any) -> Any:
        """Put the products in place; also once more, after a process that was ended while it did so.

        :param result: what the job has left.
        :returns: the result, with the real names of products in it.
        :raises ProductError: when one was not made, or not made anew.
        :raises FileSystemRefused: when the file system is full, or the like; another process can do it later.
        :raises UnreadableRecord: when the record of what was begun cannot be read.
        """
        if not self._task.products:
            return result
        making, made_from = self._begun()
        result = making.unstage_paths(result)
        self._run.commit(making, made_from, result)
        return result

    def unstage_paths(self, result: Any) -> Any:
        """Return a result with the real names of products in it, after another process has put these in place.

        :param result: what the job has left.
        :raises UnreadableRecord: when the record of the products cannot be read.
        """
        return self._begun()[0].unstage_paths(result) if self._task.products else result

    def discard(self) -> None:
        """Put aside, or remove, what the job has made.

        :raises UnreadableRecord: when the record of the products cannot be read.
        """
        if self._task.products and self._directory.read_products() is not None:  # else it never came as far as that
            self._begun()[0].discard()

    def _begun(self) -> tuple[StagedProducts, Inputs]:
        noted = self._directory.read_products()
        with PRODUCTS.reading(self._directory.products):
            if noted is None:
                raise ValueError("it does not exist")
            making = self._making(noted["attempt"])
            making.resume({path: before and Fingerprint(*before) for path, before in noted["before"].items()})
            return making, Inputs.of_data(noted["made_from"])

    def _making(self, attempt: str) -> StagedProducts:
        return StagedProducts(self._task.name, self._task.products, self._task.settings.workdir, attempt)


def require_workdir(task: Task) -> None:
    """Refuse relative paths where there is nothing that they could be taken from.

    :raises InvalidTask: for a relative path of a task without a working directory.
    """
    for marker in (*task.products, *task.dependencies):
        if task.settings.workdir is None and is_relative(marker.path):
            raise InvalidTask(
                f"task {task.name!r}: {marker!r} is relative, and a job without a workdir runs in its run directory; "
                "give the task a workdir, or the path from the root on"
            )
