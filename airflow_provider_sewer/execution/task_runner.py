"""Run one task: see whether it has to, have its products made whole, and run its module or function."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask, ProductError, SewerError
from airflow_provider_sewer.core.paths import External, PathMarker, Product, absolute_path, path_for_module
from airflow_provider_sewer.core.staleness import (
    Decision,
    Inputs,
    ProductRecord,
    StalenessInputs,
    decide,
    missing_reason,
)
from airflow_provider_sewer.core.values import Result
from airflow_provider_sewer.execution.code_fingerprint import Fingerprinter
from airflow_provider_sewer.execution.module_runner import ALONE, ModuleRunner, RunEnvironment
from airflow_provider_sewer.execution.staged_products import (
    StagedProducts,
    existing_products,
    files_beside,
    fingerprints_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.values import Marker
    from airflow_provider_sewer.execution.output import Sink


_COMMANDS = json.JSONEncoder(sort_keys=True, default=str)


class TaskRunner:
    """One attempt at a task, which can be stopped.

    :param task: the task, its settings settled.
    :param results: the results of the tasks before it, by name.
    :param runner: who runs it.
    :param secrets: values that must not be shown, besides those that the task itself shows to be secret.
    :param after: the tasks before it of which it takes something else than files.
    :param origins: who knows its code and its environment.

    ``runs_before`` can be set: what :meth:`latest_run` returned for other tasks before it, by their names. So can
    ``dag_run``: the DAG and the run that it is part of.
    """

    def __init__(
        self,
        task: Task,
        results: Mapping[str, Any],
        runner: RunEnvironment = ALONE,
        *,
        secrets: Collection[str] = (),
        after: Sequence[Task] = (),
        origins: Fingerprinter | None = None,
    ) -> None:
        self._task = task
        self._results = results
        self._runner = runner
        self._secrets = secrets
        self._after = after
        self.runs_before: Mapping[str, str] = {}
        self.dag_run: Sequence[str] | None = None
        self._origins = origins or Fingerprinter()
        self._workdir = task.settings.workdir
        self._run: ModuleRunner | None = None
        self._stopped: bool | None = None

    @property
    def task(self) -> Task:
        """Return the task."""
        return self._task

    def latest_run(self) -> str | None:
        """Return what tells the run that has left its products from others, as far as there is a record of it."""
        return _latest_run(self._task)

    def decision(
        self,
        ran_anew: Sequence[str] = (),
        ran_anew_otherwise: Sequence[str] = (),
        *,
        is_alone: bool = False,
        is_beforehand: bool = False,
        left_open: Collection[str] = (),
    ) -> tuple[Decision, Any]:
        """Say whether the task has to run, and the result it has left before if it has not.

        :param ran_anew: tasks before it that ran anew and of which it takes files.
        :param ran_anew_otherwise: tasks before it that ran anew, of which it takes something else.
        :param is_alone: nothing is known of the tasks after it: a product that was removed after use is missing.
        :param is_beforehand: these tasks have not run yet, but will.
        :param left_open: dependencies that will be made anew before, and may then be what they were.
        :raises InvalidTask: when that depends on a result which is not known.
        :raises ProductError: when what it depends on cannot be read.
        """
        task = self._task
        if task.run_policy.run_when == "always":  # whatever there is
            return decide(StalenessInputs(task.run_policy, (), {}, command="")), None
        made = existing_products(task.products, self._workdir)
        if is_alone:
            made = [each._replace(record=each.record and each.record._replace(is_removed=False)) for each in made]
        records = [each.record for each in made if each.record]
        with self._reading_named():
            question = StalenessInputs(task.run_policy, made, self._dependencies(), command="")
            if task.run_policy.run_when == "stale":
                question = question._replace(
                    command=self.command(),
                    after=self._runs_before(),
                    code=self._code(),
                    environment=self._environment(),
                    rerun_upstream=ran_anew,
                    rerun_upstream_elsewhere=ran_anew_otherwise,
                    is_beforehand=is_beforehand,
                    left_open=left_open,
                    beside=self._files_beside(),
                )
            return decide(question), records[0].result if records else None

    def run(self, sink: Sink, *, on_start: Callable[[str, str | None], None] | None = None) -> Any:
        """Run it, put its products in place, and return its result.

        :param sink: takes its output as it comes.
        :param on_start: told the command line, secrets masked, and the working directory.
        :raises ProductError: when a dependency is not there, or a product was not made.
        :raises SewerError: as :meth:`~airflow_provider_sewer.execution.module_runner.ModuleRunner.run` does.
        """
        task = self._task
        made_from = self.inputs()
        making = StagedProducts(task.name, task.products, self._workdir)
        making.begin()
        try:
            self._run = ModuleRunner(self.call(making), task.settings, self._runner, secrets=self._secrets)
            if self._stopped is not None:
                self._run.stop(at_once=self._stopped)
            result = making.unstage_paths(self._run.run(sink, on_start=on_start).value)
            self.commit(making, made_from, result)
        except BaseException:
            making.discard()
            raise
        return result

    def has_changed(self) -> str | None:
        """Return what it was made from is no more, as half a sentence, whatever its build mode; ``None`` if all is.

        :raises SewerError: as :meth:`verdict` does.
        """
        made = existing_products(self._task.products, self._workdir)
        if not made or any(each.record is None for each in made):
            return None
        with self._reading_named():
            question = StalenessInputs(
                self._task.run_policy._replace(run_when="stale"),
                made,
                self._dependencies(),
                command=self.command(),
                code=self._code(),
                environment=self._environment(),
                beside=self._files_beside(),
            )
            verdict = decide(question)
        return verdict.reason if verdict.must_run else None

    def missing_inputs(self) -> str | None:
        """Return which of its products is not there, or not whole, as half a sentence; ``None`` if all are."""
        return missing_reason(existing_products(self._task.products, self._workdir))

    def inputs(self) -> Inputs:
        """Return what its products would be made from now.

        :raises ProductError: when a dependency is not there, or cannot be read.
        :raises SewerError: when its code or environment counts, and cannot be found.
        """
        self._want_dependencies()
        if not self._task.products:
            return Inputs({})
        by_content = self._task.run_policy.compare == "content"
        with self._reading_named():
            stamps = fingerprints_of(self._dependencies(), read=by_content)
            return Inputs(stamps, self._runs_before(), self._code(), self._environment())

    def call(self, making: StagedProducts | None) -> Call:
        """Return what an interpreter is asked to run, the products under the names that they come to be under.

        :param making: knows these names; without it, they have their own.
        """
        return self._task.call(lambda marker: self._filled(marker, making))

    def commit(self, making: StagedProducts, made_from: Inputs, result: Any) -> None:
        """Put the products in place, and record what they were made from.

        :param made_from: what :meth:`made_from` returned before it ran.
        :param result: what the task has left.
        :raises ProductError: when one was not made, or not made anew.
        """
        task = self._task
        if not task.products:
            return
        record = ProductRecord(
            task.name, self.command(), None, **made_from._asdict(), result=result, dag_run=self.dag_run
        )
        by_content = task.run_policy.compare == "content"
        making.commit(record, [product.path for product in task.products] if by_content else ())

    def stop(self, *, at_once: bool = False) -> None:
        """Have it ended; from a signal handler or another thread."""
        self._stopped = at_once or bool(self._stopped)
        if self._run is not None:
            self._run.stop(at_once=at_once)

    def command(self) -> str:
        """Return a digest of what the task runs, by which a change of its parameters is noticed."""
        said = self._task.signature(lambda marker: self._filled(marker, None))
        return hashlib.sha256(_COMMANDS.encode(said).encode()).hexdigest()

    def _filled(self, marker: Marker, making: StagedProducts | None) -> Any:
        if isinstance(marker, Result):
            return self._result(marker)
        if isinstance(marker, Product) and making is not None:
            return making.staging_path(marker)
        if isinstance(marker, PathMarker):
            return marker.path if making is None else path_for_module(marker.path)
        return marker

    def _runs_before(self) -> dict[str, str]:
        """Return which run it was that has left the products of the tasks before it, as far as they make any."""
        runs = {task.name: _latest_run(task) for task in self._after}
        return {**self.runs_before, **{name: run for name, run in runs.items() if run is not None}}

    def _code(self) -> str | None:
        return self._origins.code_fingerprint(self._task) if "code" in self._task.run_policy.stale_with else None

    def _environment(self) -> str | None:
        return (
            self._origins.environment_fingerprint(self._task)
            if "environment" in self._task.run_policy.stale_with
            else None
        )

    @contextmanager
    def _reading_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ProductError(
                f"task {self._task.name!r}: cannot look whether it is up to date: {error.filename}: {error.strerror}",
                self._task.source,
            ) from None

    def _result(self, marker: Result) -> Any:
        task = self._task
        try:
            if marker.task.name not in self._results:
                raise InvalidTask(f"{marker!r} is not known: the task is not run here, and no earlier run has left it")
            return marker.resolve(self._results[marker.task.name])
        except InvalidTask as error:
            raise InvalidTask(f"task {task.name!r}: {error}", task.source) from None

    def _dependencies(self) -> dict[str, str]:
        return {each.path: absolute_path(each.path, self._workdir) for each in self._task.dependencies}

    def _files_beside(self) -> dict[str, list[str]]:
        return {path: files_beside(file) for path, file in self._dependencies().items()}

    def _want_dependencies(self) -> None:
        for dependency in self._task.dependencies:
            file = absolute_path(dependency.path, self._workdir)
            if not os.path.exists(file):
                raise missing_products(self._task, dependency, file)


def _latest_run(task: Task) -> str | None:
    records = [made.record for made in existing_products(task.products, task.settings.workdir)]
    stamps = [record.product for record in records if record is not None and record.product is not None]
    return " ".join(stamp.seen for stamp in stamps) or None


def missing_products(task: Task, dependency: PathMarker, file: str) -> SewerError:
    """Say that a dependency is not there."""
    whose = "comes from outside and" if isinstance(dependency, External) else "no task here makes, and which"
    what = "is a link that leads nowhere" if os.path.islink(file) else "does not exist"
    return ProductError(
        f"task {task.name!r} needs {dependency.path!r}, which {whose} {what}: {file}; "
        "put it there, or correct the path",
        task.source,
    )


def missing_of(task: Task, dependency: PathMarker, maker: str, what: str) -> SewerError:
    """Say that a dependency is not there, or not whole, and that its maker is not to run.

    :param what: what is wrong with it, as half a sentence.
    """
    return ProductError(
        f"task {task.name!r} needs {dependency.path!r}, which task {maker!r} makes, and that is not among those to "
        f"run; {what}; run {maker!r} as well",
        task.source,
    )
