"""Products of a task that runs as a job: staged at its submission, committed after its end.

Their state in between is recorded in the job directory, so one process or two can do both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.fingerprints import Fingerprint
from airflow_provider_sewer.core.formats import PRODUCTS
from airflow_provider_sewer.core.paths import is_relative
from airflow_provider_sewer.core.staleness import Inputs
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.task_runner import TaskRunner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.slurm.job_directory import JobDirectory


class JobProducts:
    """Products of one attempt.

    :param task: the task.
    :param directory: the job directory of the attempt.
    :param run: runner that knows the task's arguments and inputs, where the task itself does not state them all.
    :param runs_before: the runs of the upstream tasks that this one follows, where ``run`` does not know.
    :param dag_run: DAG and run that it belongs to, if any.
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
        """Create the staging folders, and return the job's command.

        :param attempt: the name of the attempt.
        :raises InvalidTask: when the path of a product cannot be determined.
        :raises ProductError: when a dependency does not exist, or a folder cannot be created.
        """
        require_workdir(self._task)
        inputs = self._run.inputs()
        staged = self._staged(attempt)
        staged.begin()
        if self._task.products:
            self._directory.write_products(
                {"attempt": attempt, "before": staged.snapshot(), "inputs": inputs.to_data()}
            )
        return self._run.call(staged)

    def commit(self, result: Any) -> Any:
        """Commit the products; also again, after a process that was ended during a commit.

        :param result: the job's result.
        :returns: the result, with the final paths of products in it.
        :raises ProductError: when a product was not created, or not created again.
        :raises FileSystemRefused: when the file system is full, or the like; another process can commit later.
        :raises UnreadableRecord: when the record of the staged products cannot be read.
        """
        if not self._task.products:
            return result
        staged, inputs = self._begun()
        result = staged.unstage_paths(result)
        self._run.commit(staged, inputs, result)
        return result

    def unstage_paths(self, result: Any) -> Any:
        """Return a result with the final paths of products in it, after another process has committed them.

        :param result: the job's result.
        :raises UnreadableRecord: when the record of the products cannot be read.
        """
        return self._begun()[0].unstage_paths(result) if self._task.products else result

    def discard(self) -> None:
        """Remove or set aside the staged products of the job.

        :raises UnreadableRecord: when the record of the products cannot be read.
        """
        if self._task.products and self._directory.read_products() is not None:  # else nothing was staged
            self._begun()[0].discard()

    def _begun(self) -> tuple[StagedProducts, Inputs]:
        record = self._directory.read_products()
        with PRODUCTS.reading(self._directory.products):
            if record is None:
                raise ValueError("it does not exist")
            staged = self._staged(record["attempt"])
            staged.resume({path: before and Fingerprint(*before) for path, before in record["before"].items()})
            return staged, Inputs.of_data(record["inputs"])

    def _staged(self, attempt: str) -> StagedProducts:
        return StagedProducts(self._task.name, self._task.products, self._task.settings.workdir, attempt)


def require_workdir(task: Task) -> None:
    """Reject relative paths where there is no folder to resolve them against.

    :raises InvalidTask: for a relative path of a task without a working directory.
    """
    for marker in (*task.products, *task.dependencies):
        if task.settings.workdir is None and is_relative(marker.path):
            raise InvalidTask(
                f"task {task.name!r}: {marker!r} is relative, but a job without workdir runs in its job directory; "
                "set workdir on the task, or use an absolute path"
            )
