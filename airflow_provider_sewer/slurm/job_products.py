"""Products of a task that runs as a job: staged at its submission, committed after its end.

Their state in between is recorded in the job directory. The process that has staged them commits them without reading
that record; any other process reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.fingerprints import Fingerprint
from airflow_provider_sewer.core.formats import PRODUCTS
from airflow_provider_sewer.core.paths import is_relative
from airflow_provider_sewer.core.staleness import Inputs
from airflow_provider_sewer.execution.staged_products import StagedProducts

if TYPE_CHECKING:
    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.task_runner import TaskRunner
    from airflow_provider_sewer.slurm.job_directory import JobDirectory


class JobProducts:
    """Products of one attempt.

    :param run: runs the task that the attempt was begun with.
    :param directory: the job directory of the attempt.
    """

    def __init__(self, run: TaskRunner, directory: JobDirectory) -> None:
        self.run = run
        self._directory = directory
        self._begun: tuple[StagedProducts, Inputs] | None = None

    def begin(self, attempt: str) -> Call:
        """Create the staging folders, and return the job's command.

        :param attempt: the name of the attempt.
        :raises ProductError: when a dependency does not exist, or a folder cannot be created.
        """
        inputs = self.run.inputs()
        staged = StagedProducts(self.run.task.name, self.run.products, attempt)
        staged.begin()
        if self.run.products:
            self._directory.write_products({"attempt": attempt, "before": staged.before, "inputs": inputs.to_data()})
        self._begun = staged, inputs
        return self.run.call(staged.paths)

    def commit(self, result: Any) -> Any:
        """Commit the products; also again, after a process that was ended during a commit.

        :param result: the job's result.
        :returns: the result, with the final paths of products in it.
        :raises ProductError: when a product was not created, or not created again.
        :raises FileSystemRefused: when the file system is full, or the like; another process can commit later.
        :raises UnreadableRecord: when the record of the staged products cannot be read.
        """
        if not self.run.products:
            return result
        staged, inputs = self._begun or self._read()
        result = staged.unstage_paths(result)
        self.run.commit(staged, inputs, result)
        return result

    def unstage_paths(self, result: Any) -> Any:
        """Return a result with the final paths of products in it, after another process has committed them.

        :param result: the job's result.
        :raises UnreadableRecord: when the record of the products cannot be read.
        """
        return (self._begun or self._read())[0].unstage_paths(result) if self.run.products else result

    def discard(self) -> None:
        """Remove or set aside the staged products of the job.

        :raises UnreadableRecord: when the record of the products cannot be read.
        """
        if not self.run.products or (self._begun is None and self._directory.read_products() is None):
            return  # nothing was staged
        (self._begun or self._read())[0].discard()

    def _read(self) -> tuple[StagedProducts, Inputs]:
        record = self._directory.read_products()
        with PRODUCTS.reading(self._directory.products):
            if record is None:
                raise ValueError("it does not exist")
            staged = StagedProducts(self.run.task.name, self.run.products, record["attempt"])
            staged.before = {path: before and Fingerprint(*before) for path, before in record["before"].items()}
            return staged, Inputs.of_data(record["inputs"])


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
