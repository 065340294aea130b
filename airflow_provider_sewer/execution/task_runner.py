"""Execution of one task: its run decision, its module or function, and the commit of its products."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import InvalidTask, ProductError, SewerError
from airflow_provider_sewer.core.paths import External, PathMarker, Product, absolute_path, located, path_for_module
from airflow_provider_sewer.core.placeholders import Result
from airflow_provider_sewer.core.staleness import (
    Decision,
    Inputs,
    ProductRecord,
    StalenessInputs,
    decide,
    missing_reason,
)
from airflow_provider_sewer.execution.code_fingerprint import Fingerprinter
from airflow_provider_sewer.execution.module_runner import DEFAULT_ENVIRONMENT, ModuleRunner, RunEnvironment
from airflow_provider_sewer.execution.product_records import existing_products, files_beside, fingerprints_of
from airflow_provider_sewer.execution.staged_products import StagedProducts
from airflow_provider_sewer.execution.standard_streams import require_regular
from airflow_provider_sewer.execution.task_usage import NO_USAGE, TaskUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.paths import LocatedProduct
    from airflow_provider_sewer.core.placeholders import Marker
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.output import Sink


_COMMANDS = json.JSONEncoder(sort_keys=True, default=str)


class TaskRunner:
    """One attempt of a task, which can be stopped.

    :param task: the task, its settings resolved.
    :param results: the results of its upstream tasks, by name.
    :param runner: the environment that it runs in.
    :param secrets: values to mask, in addition to those that the task marks as secret.
    :param after: the upstream tasks that it depends on by more than files.
    :param origins: computes the fingerprints of its code and its environment.
    :param dag_run: its DAG and DAG run, if any.

    The attribute ``runs_before`` can be set: the return values of :meth:`latest_run` for other upstream tasks, by name.
    """

    def __init__(
        self,
        task: Task,
        results: Mapping[str, Any],
        runner: RunEnvironment = DEFAULT_ENVIRONMENT,
        *,
        secrets: Collection[str] = (),
        after: Sequence[Task] = (),
        origins: Fingerprinter | None = None,
        dag_run: Sequence[str] | None = None,
    ) -> None:
        self.task = task
        self._results = results
        self._runner = runner
        self._secrets = (*task.secrets, *secrets)
        self._after = after
        self.runs_before: Mapping[str, str] = {}
        self.dag_run = dag_run
        self._origins = origins or Fingerprinter()
        self.products = located(task.products, task.settings.workdir)
        #: The absolute paths of the dependencies by the paths that the task declares.
        self._dependencies = {each.path: absolute_path(each.path, task.settings.workdir) for each in task.dependencies}
        self._run: ModuleRunner | None = None
        self._stopped: bool | None = None

    @property
    def usage(self) -> TaskUsage:
        """Return the usage of the attempt, once it has ended."""
        return TaskUsage(self._run.used) if self._run else NO_USAGE

    def latest_run(self) -> str | None:
        """Return an identifier of the run that produced its current products; ``None`` if no record has one."""
        return _latest_run(self.products)

    def decision(
        self,
        reran: Sequence[str] = (),
        reran_elsewhere: Sequence[str] = (),
        *,
        is_alone: bool = False,
        is_beforehand: bool = False,
        left_open: Collection[str] = (),
    ) -> tuple[Decision, Any]:
        """Return whether the task has to run, and its previous result if it does not.

        :param reran: upstream tasks that ran again and whose files it depends on.
        :param reran_elsewhere: upstream tasks that ran again and that it depends on by more than files.
        :param is_alone: its downstream tasks are unknown, so a product that was removed after use counts as missing.
        :param is_beforehand: the upstream tasks have not run yet, but will.
        :param left_open: dependencies that will be rebuilt first, and may be unchanged afterwards.
        :raises InvalidTask: when the decision depends on a result that is not known.
        :raises ProductError: when a dependency cannot be read.
        """
        task = self.task
        if task.run_policy.run_when == "always":
            return decide(StalenessInputs(task.run_policy, (), {}, command="")), None
        states = existing_products(self.products)
        if is_alone:
            states = [each._replace(record=each.record and each.record._replace(is_removed=False)) for each in states]
        records = [each.record for each in states if each.record]
        with self._reading_named():
            staleness = StalenessInputs(task.run_policy, states, self._dependencies, command="")
            if task.run_policy.run_when == "stale":
                code, environment = self._code_and_environment()
                staleness = staleness._replace(
                    command=self.command(),
                    upstream=self._runs_before(),
                    code=code,
                    environment=environment,
                    rerun_upstream=reran,
                    rerun_upstream_elsewhere=reran_elsewhere,
                    is_beforehand=is_beforehand,
                    left_open=left_open,
                    beside=self._files_beside(),
                )
            return decide(staleness), records[0].result if records else None

    def run(self, sink: Sink, *, on_start: Callable[[str, str | None], None] | None = None) -> Any:
        """Run the task, commit its products, and return its result.

        :param sink: receives its output as it is written.
        :param on_start: called with the command line, secrets masked, and the working directory.
        :raises ProductError: when a dependency does not exist, or a product was not created.
        :raises SewerError: as :meth:`~airflow_provider_sewer.execution.module_runner.ModuleRunner.run` does.
        """
        task = self.task
        inputs = self.inputs()
        staged = StagedProducts(task.name, self.products)
        staged.begin()
        try:
            call, shown_call = self.call(staged.paths), self.repeatable_call()
            self._run = ModuleRunner(call, task.settings, self._runner, secrets=self._secrets, shown_call=shown_call)
            if self._stopped is not None:
                self._run.stop(at_once=self._stopped)
            result = staged.unstage_paths(self._run.run(sink, on_start=on_start).value)
            self.commit(staged, inputs, result)
        except BaseException:
            staged.discard()
            raise
        return result

    def has_changed(self) -> str | None:
        """Return a clause that names the changed input, independent of ``run_when``; ``None`` if nothing changed.

        :raises SewerError: as :meth:`decision` does.
        """
        states = existing_products(self.products)
        if not states or any(each.record is None for each in states):
            return None
        with self._reading_named():
            code, environment = self._code_and_environment()
            staleness = StalenessInputs(
                self.task.run_policy._replace(run_when="stale"),
                states,
                self._dependencies,
                command=self.command(),
                code=code,
                environment=environment,
                beside=self._files_beside(),
            )
            decision = decide(staleness)
        return decision.reason if decision.must_run else None

    def missing_product(self) -> str | None:
        """Return a clause that names a missing or incomplete product; ``None`` if all products are complete."""
        return missing_reason(existing_products(self.products))

    def inputs(self) -> Inputs:
        """Return the current inputs of its products.

        :raises ProductError: when a dependency does not exist, or cannot be read.
        :raises SewerError: when its code or environment is tracked and cannot be found.
        """
        for dependency in self.task.dependencies:
            file = self._dependencies[dependency.path]
            if not os.path.exists(file):
                raise missing_dependency_error(self.task, dependency, file)
        require_stdin(self.task)
        if not self.task.products:
            return Inputs({})
        by_content = self.task.run_policy.compare == "content"
        with self._reading_named():
            fingerprints = fingerprints_of(self._dependencies, read=by_content)
            return Inputs(fingerprints, self._runs_before(), *self._code_and_environment())

    def call(self, staged: Mapping[Product, str] | None) -> Call:
        """Return the call that the interpreter runs, with the staging paths of the products.

        :param staged: these paths; without them, the products have their real ones.
        """
        return self.task.call(lambda marker: self._filled(marker, staged))

    def repeatable_call(self) -> Call:
        """Return the call with the real paths of the products, which a user can repeat."""
        return self.task.call(
            lambda marker: (
                path_for_module(marker.path) if isinstance(marker, PathMarker) else self._filled(marker, None)
            )
        )

    def commit(self, staged: StagedProducts, inputs: Inputs, result: Any) -> None:
        """Commit the products with a record of their inputs.

        :param inputs: the return value of :meth:`inputs` before the run.
        :param result: the result of the task.
        :raises ProductError: when a product was not written.
        """
        task = self.task
        if not task.products:
            return
        record = ProductRecord(task.name, self.command(), None, *inputs, result=result, dag_run=self.dag_run)
        by_content = task.run_policy.compare == "content"
        staged.commit(record, [product.path for product in task.products] if by_content else ())

    def stop(self, *, at_once: bool = False) -> None:
        """Stop the run; callable from a signal handler or another thread."""
        self._stopped = at_once or bool(self._stopped)
        if self._run is not None:
            self._run.stop(at_once=at_once)

    def command(self) -> str:
        """Return a digest of the task's signature, which changes with its parameters."""
        signature = self.task.signature(lambda marker: self._filled(marker, None))
        return hashlib.sha256(_COMMANDS.encode(signature).encode()).hexdigest()

    def _filled(self, marker: Marker, staged: Mapping[Product, str] | None) -> Any:
        if isinstance(marker, Result):
            return self._result(marker)
        if isinstance(marker, Product) and staged is not None:
            return staged[marker]
        if isinstance(marker, PathMarker):
            return marker.path if staged is None else path_for_module(marker.path)
        return marker

    def _runs_before(self) -> dict[str, str]:
        """Return the runs that produced the products of its upstream tasks, by task name."""
        runs = {task.name: _latest_run(located(task.products, task.settings.workdir)) for task in self._after}
        return {**self.runs_before, **{name: run for name, run in runs.items() if run is not None}}

    def _code_and_environment(self) -> tuple[str | None, str | None]:
        """Return the fingerprints of its code and of its environment; ``None`` for one that does not count."""
        counts = self.task.run_policy.stale_with
        code = self._origins.code_fingerprint(self.task) if "code" in counts else None
        return code, self._origins.environment_fingerprint(self.task) if "environment" in counts else None

    @contextmanager
    def _reading_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ProductError(
                f"task {self.task.name!r}: cannot check whether it is up to date: {error.filename}: {error.strerror}",
                self.task.source,
            ) from None

    def _result(self, marker: Result) -> Any:
        task = self.task
        try:
            if marker.task.name not in self._results:
                raise InvalidTask(f"{marker!r} is not known: its task is not run here, and no earlier run saved it")
            return marker.resolve(self._results[marker.task.name])
        except InvalidTask as error:
            raise InvalidTask(f"task {task.name!r}: {error}", task.source) from None

    def _files_beside(self) -> dict[str, list[str]]:
        return {path: files_beside(file) for path, file in self._dependencies.items()}


def _latest_run(products: Iterable[LocatedProduct]) -> str | None:
    records = [state.record for state in existing_products(products)]
    fingerprints = [record.product for record in records if record is not None and record.product is not None]
    return " ".join(each.seen for each in fingerprints) or None


def require_stdin(task: Task) -> None:
    """Require that the file of a task's stdin is a regular one, if it exists.

    :raises ProductError: when it is not.
    """
    if task.stdin is None:
        return
    try:
        require_regular("stdin", absolute_path(task.stdin.path, task.settings.workdir))
    except ProductError as error:
        raise ProductError(f"task {task.name!r}: {error}", task.source) from None
    except OSError:  # it does not exist yet, or cannot be reached: opening it reports that
        return


def missing_dependency_error(task: Task, dependency: PathMarker, file: str) -> SewerError:
    """Return the error for a dependency that does not exist and that no task produces."""
    origin = "is external and" if isinstance(dependency, External) else "is not a product of any task and"
    problem = "is a broken link" if os.path.islink(file) else "does not exist"
    return ProductError(
        f"task {task.name!r} needs {dependency.path!r}, which {origin} {problem}: {file}; "
        "create it, or correct the path",
        task.source,
    )


def missing_product_error(task: Task, dependency: PathMarker, producer: str, problem: str) -> SewerError:
    """Return the error for a missing or incomplete dependency whose producer is not selected.

    :param problem: a clause that describes the state of the file.
    """
    return ProductError(
        f"task {task.name!r} needs {dependency.path!r}, a product of task {producer!r}, which is not selected; "
        f"{problem}; run {producer!r} as well",
        task.source,
    )
