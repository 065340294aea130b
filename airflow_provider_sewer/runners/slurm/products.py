"""The products of a task that runs as a job: begun where it is submitted, put in place where its end is seen.

What is noted in between lies in the run directory, so that it makes no difference whether one process does both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.formats import PRODUCTS
from airflow_provider_sewer.core.freshness import MadeFrom, Stamp
from airflow_provider_sewer.core.paths import is_relative
from airflow_provider_sewer.runners.products import Making
from airflow_provider_sewer.runners.task_run import TaskRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.function import Call
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.runners.slurm.run_directory import RunDirectory


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
        directory: RunDirectory,
        run: TaskRun | None = None,
        runs_before: Mapping[str, str] | None = None,
        dag_run: Sequence[str] | None = None,
    ) -> None:
        self._task = task
        self._directory = directory
        self._run = run or TaskRun(task, {})
        if runs_before is not None:
            self._run.runs_before = runs_before
        self._run.dag_run = dag_run

    def begin(self, attempt: str) -> Call:
        """Make the folders that the products go to, and return what the job is to run.

        :param attempt: the name of the attempt.
        :raises InvalidTask: when it cannot be told where a product is to be.
        :raises ProductError: when a dependency is not there, or a folder cannot be made.
        """
        want_workdir(self._task)
        made_from = self._run.made_from()
        making = self._making(attempt)
        making.begin()
        if self._task.products:
            self._directory.write_products(
                {"attempt": attempt, "before": making.noted(), "made_from": made_from.to_data()}
            )
        return self._run.call(making)

    def publish(self, result: Any) -> Any:
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
        result = making.real_names_in(result)
        self._run.publish(making, made_from, result)
        return result

    def real_names_in(self, result: Any) -> Any:
        """Return a result with the real names of products in it, after another process has put these in place.

        :param result: what the job has left.
        :raises UnreadableRecord: when the record of the products cannot be read.
        """
        return self._begun()[0].real_names_in(result) if self._task.products else result

    def fail(self) -> None:
        """Put aside, or remove, what the job has made.

        :raises UnreadableRecord: when the record of the products cannot be read.
        """
        if self._task.products and self._directory.read_products() is not None:  # else it never came as far as that
            self._begun()[0].fail()

    def _begun(self) -> tuple[Making, MadeFrom]:
        noted = self._directory.read_products()
        with PRODUCTS.reading(self._directory.products):
            if noted is None:
                raise ValueError("it does not exist")
            making = self._making(noted["attempt"])
            making.go_on({path: before and Stamp(*before) for path, before in noted["before"].items()})
            return making, MadeFrom.of_data(noted["made_from"])

    def _making(self, attempt: str) -> Making:
        return Making(self._task.name, self._task.products, self._task.settings.workdir, attempt)


def want_workdir(task: Task) -> None:
    """Refuse relative paths where there is nothing that they could be taken from.

    :raises InvalidTask: for a relative path of a task without a working directory.
    """
    for marker in (*task.products, *task.dependencies):
        if task.settings.workdir is None and is_relative(marker.path):
            raise InvalidTask(
                f"task {task.name!r}: {marker!r} is relative, and a job without a workdir runs in its run directory; "
                "give the task a workdir, or the path from the root on"
            )
