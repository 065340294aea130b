"""Airflow operator that runs a Python module or function in an external interpreter."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_sewer.core.errors import InvalidTask, ModuleFailed, UntrustedPath
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.paths import Dependency, PathMarker, Product, checked_text
from airflow_provider_sewer.core.secret_detection import secret_texts
from airflow_provider_sewer.core.size_limits import bounded_list
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.task_fields import checked_stream, reject_shared_stdout
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.execution.module_runner import ModuleResult, RunEnvironment
from airflow_provider_sewer.execution.process import GRACE
from airflow_provider_sewer.execution.task_log import log_output
from airflow_provider_sewer.execution.task_runner import TaskRunner
from airflow_provider_sewer.hooks.sewer import SewerHook, mask_secrets
from airflow_provider_sewer.operators.assets import asset_names, given_outlets
from airflow_provider_sewer.operators.dag_test_signals import interruptible
from airflow_provider_sewer.operators.field_checks import check_fields, check_types, known, seconds
from airflow_provider_sewer.operators.openlineage import lineage_of
from airflow_provider_sewer.operators.overlapping_runs import claim_temporary, warn_of_other_runs
from airflow_provider_sewer.operators.result_checks import checked_result
from airflow_provider_sewer.operators.secret_fields import hide_arguments, hide_secrets, reveal_secrets
from airflow_provider_sewer.operators.secret_warnings import HidingPartial, warn_of_secrets
from airflow_provider_sewer.operators.supervisor import supervisor
from airflow_provider_sewer.operators.template_fields import TemplateFields
from airflow_provider_sewer.operators.template_markers import MARKED, TemplateMarkers
from airflow_provider_sewer.operators.upstream_runs import pull_upstream_runs, push_run_info
from airflow_provider_sewer.operators.workdir_warning import warn_without_workdir
from airflow_provider_sewer.operators.xcom_references import is_reference

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.core.task import Path


class PythonModuleOperator(TemplateFields, BaseOperator):
    """Run ``python -m module`` with parameters and flags, or call a function, in an interpreter of your choice.

    The module does not need Airflow. Its output is logged as it arrives. The XCom is the JSON value in the file
    ``$SEWER_RESULT_FILE``, else the last line of stdout, or the return value of a function. When the task is killed,
    cleared, marked failed or timed out, the module and all its child processes are terminated.

    Products are written atomically: the module gets a staging path, and on success the product is moved into place,
    with the files written beside it. Each product whose path is known is an outlet (see
    :func:`~airflow_provider_sewer.operators.assets.product_asset`). An up-to-date task succeeds without running and
    emits no asset event. A task that a user clears always runs.

    Relative paths of interpreter and working directory start at the folder of the DAG file; those of products and
    dependencies at the working directory.

    :param arguments: values that other fields refer to as ``{{ task.arguments['name'] }}``; rendered first.
        (templated)
    :param module: dotted name of the module. (templated)
    :param parameters_and_flags: options passed as ``--key value`` and ``--flag``
        (see :mod:`airflow_provider_sewer.core.cli_args`). (templated)
    :param args: verbatim arguments, placed before the parameters. (templated)
    :param use_underscores: keep ``_`` in keys instead of writing ``-``.
    :param function: ``package.module:function`` to call instead of a module. (templated)
    :param op_kwargs: keyword arguments of the function, as JSON values. (templated)
    :param products: paths the task produces, besides those in its parameters. (templated)
    :param dependencies: paths the task reads, besides those in its parameters. (templated)
    :param stdin: the file it reads as its stdin, a dependency; without it, stdin is empty. (templated)
    :param stdout: the file its stdout is written to, byte for byte, a product; stderr is logged. Its last line is not
        the XCom then. (templated)
    :param run_when: ``"always"``, ``"missing"``, ``"stale"`` or ``"never"``
        (see :mod:`airflow_provider_sewer.core.staleness`).
    :param compare: how dependencies are compared with those of the last run: by ``"mtime"`` or ``"content"``.
    :param stale_with: further inputs whose change makes the products stale: ``"code"``, ``"environment"``.
    :param stale_after: ids of upstream tasks; if one of them runs, also in an earlier DAG run, the products become
        stale. ``id[3]`` is a single instance of a mapped task.
    :param item: the item of this instance, if the task is mapped over the result of a workflow task. It is data, never
        a template.
    :param products_of_all: of a mapped task, the names of the assets that any of its instances produces. They must be
        among its outlets; each instance keeps only its own.
    :param python: path of the interpreter, or a name to look up on PATH. (templated)
    :param env: environment variables to set. (templated)
    :param inherit_env: ``True``, or names of variables to inherit from the worker in addition to the default ones.
    :param workdir: working directory. Default: that of the connection, then the worker's own. (templated)
    :param sewer_conn_id: ``sewer`` connection for arguments that are not given. (templated)
    :param skip_on_exit_code: exit codes that skip the task instead of failing it.
    :param termination_grace_period: time between SIGTERM and SIGKILL when the module is terminated, in seconds or as a
        timedelta.
    """

    template_fields: Sequence[str] = (
        "arguments", "module", "parameters_and_flags", "args", "function", "op_kwargs", "products", "dependencies",
        "stdin", "stdout", "python", "env", "workdir", "sewer_conn_id",
    )  # fmt: skip
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "arguments": "json",
        "parameters_and_flags": "json",
        "args": "json",
        "op_kwargs": "json",
        "env": "json",
    }
    ui_color = "#d7e3cf"
    #: Whether the module runs in the worker's working directory by default.
    _runs_here: ClassVar[bool] = True
    #: Whether products can be among arguments that are known only at run time.
    _returns_paths: ClassVar[bool] = False

    def __init__(
        self,
        *,
        arguments: Mapping[str, Any] | None = None,
        module: str | None = None,
        parameters_and_flags: Mapping[str, Any] | None = None,
        args: Iterable[Any] = (),
        use_underscores: bool = False,
        function: str | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        products: Iterable[Path] = (),
        dependencies: Iterable[Path] = (),
        stdin: Path | None = None,
        stdout: Path | None = None,
        run_when: str = "always",
        compare: str = "mtime",
        stale_with: Iterable[str] = (),
        stale_after: Iterable[str] = (),
        item: Any = None,
        products_of_all: Iterable[str] | None = None,
        python: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        inherit_env: Inherit | None = None,
        workdir: str | os.PathLike[str] | None = None,
        sewer_conn_id: str | None = None,
        skip_on_exit_code: int | Container[int] | None = None,
        termination_grace_period: float | timedelta = GRACE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._markers = TemplateMarkers()
        self.arguments = arguments
        self.module = module
        self.parameters_and_flags = self._markers.extract(parameters_and_flags, "parameters_and_flags")
        self.args = self._markers.extract(_as_list("args", args), "args")
        self.use_underscores = use_underscores
        self.function = function
        self.op_kwargs = self._markers.extract(op_kwargs, "op_kwargs")
        self.products = self._markers.extract(_as_list("products", products), "products")
        self.dependencies = self._markers.extract(_as_list("dependencies", dependencies), "dependencies")
        self.stdin = self._markers.extract(self._stream("stdin", stdin, Dependency), "stdin")
        self.stdout = self._markers.extract(self._stream("stdout", stdout, Product), "stdout")
        self.stale_after = bounded_list("stale_after", stale_after)
        self.run_when = run_when
        self.compare = compare
        self.stale_with = stale_with
        self.item = item
        self.products_of_all = None if products_of_all is None else list(products_of_all)
        self.python = python
        self.env = hide_secrets(env)
        self.inherit_env = inherit_env
        self.workdir = workdir
        self.sewer_conn_id = sewer_conn_id
        self.skip_on_exit_code = skip_on_exit_code
        self.termination_grace_period = termination_grace_period
        self._task_run: TaskRunner | None = None
        self._killed = False
        # The DAG may be created in another file than the one Airflow sets after parsing.
        self._folder = folder_of(self.dag) if self.has_dag() else None  # type: ignore[no-untyped-call]
        self._check_known_fields()
        warn_of_secrets(self.task_id, self._dag, vars(self))
        listed = (known(self.products), known(self.dependencies))
        warn_without_workdir(self, [*self._markers.paths(), *chain.from_iterable(paths or () for paths in listed)])
        self.outlets = [*given_outlets(self), *map(Asset, asset_names(self))]
        self._hide_arguments()

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Return a partial operator as Airflow's ``partial`` does, with its secrets reported and hidden."""
        dag = kwargs.get("dag") or DagContext.get_current()
        warn_of_secrets(str(kwargs.get("task_id")), dag, kwargs)
        partial: Any = super().partial(**kwargs)
        partial._expand_called = True  # otherwise Airflow warns that it is never mapped
        return HidingPartial(operator_class=cls, kwargs=partial.kwargs, params=partial.params)

    def _do_render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        """Render the templates, and have Airflow mask the secrets in logs and in stored fields."""
        mask_secrets(self._secrets_in_fields())
        super()._do_render_template_fields(*args, **kwargs)
        mask_secrets(self._secrets_in_fields())

    def execute(self, context: Context) -> Any:
        """Run the module and return its result.

        :raises SewerError: when the module cannot be run, fails, or is terminated.
        """
        with interruptible(context["ti"], is_supervised=supervisor() is not None):
            try:
                return self._run(context)
            except UntrustedPath as error:  # a retry would fail in the same way
                raise AirflowFailException(error.message) from None

    def _run(self, context: Context) -> Any:
        ti, hook = context["ti"], hook_of(self.sewer_conn_id)
        with failing_at_once():
            run = self._task_run = TaskRunner(
                self._sewer_task(context, hook),
                {},
                RunEnvironment(seconds(self.termination_grace_period), supervisor()),
                secrets=(*self._secrets_in_fields(), *(hook.secret_env.values() if hook else ())),
            )
        if self._killed:
            run.stop()
        claim_temporary(self.task_id, run.products, ti, self.log.warning)
        if (current := self._up_to_date_result(context, run)) is not None:
            return checked_result(current.value, ti, self.iter_mapped_dependants())
        run.dag_run = warn_of_other_runs(run.products, ti, self.log.warning)
        try:
            result = run.run(log_output, on_start=self._log_start)
        except ModuleFailed as error:
            self._skip_if_requested(error.exit_code)
            raise
        if self.run_when != "always":
            push_run_info(ti, run.latest_run(), reran=True)
        return checked_result(result, ti, self.iter_mapped_dependants())

    def on_kill(self) -> None:
        """Terminate the module and its child processes; :meth:`execute` waits for their end."""
        self._killed = True
        if self._task_run:
            self._task_run.stop()

    def _hide_arguments(self) -> None:
        fields = {field: getattr(self, field) for field in self.template_fields}
        vars(self).update(hide_arguments(fields, self.arguments))

    def _secrets_in_fields(self) -> tuple[str, ...]:
        """Return the secrets in the fields, which other fields can contain under other names."""
        fields = {field: getattr(self, field) for field in self.template_fields}
        return tuple(secret_texts({}, reveal_secrets(fields)))

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the dependencies and products of the task for OpenLineage."""
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002 - OpenLineage's
        """Return only the dependencies: a failed task has no products."""
        lineage = self._lineage()
        return type(lineage)(inputs=lineage.inputs)

    def _lineage(self) -> OperatorLineage[Any, Any]:
        task = self._sewer_task(cast("Context", {"dag": self.dag}), hook_of(self.sewer_conn_id))
        own = asset_names(self)
        return lineage_of(
            task.dependencies,
            task.products,
            task.settings.workdir,
            inlets=self.inlets,
            outlets=[outlet for outlet in self.outlets if getattr(outlet, "name", None) not in own],
            is_here=self._runs_here,
        )

    def _sewer_task(self, context: Context, hook: SewerHook | None) -> Task:
        """Return this operator, with its templates rendered, as a workflow task."""
        task = Task(
            self.task_id,
            self.module,
            use_underscores=self.use_underscores,
            function=self.function,
            **self._marked_fields(),
            run_when=self.run_when,
            compare=self.compare,
            stale_with=self.stale_with,
        )
        for path in (*task.products, *task.dependencies):
            checked_text(type(path).__name__, path, may_be_template=False)
        task.source = SourceLine(str(context["dag"].fileloc), 0)
        task.settings = self._settings(context["dag"], hook)
        return task

    def _stream(self, field: str, path: Any, kind: type[PathMarker]) -> Any:
        """Return the path of stdin or stdout as a marker; an XCom stays."""
        try:
            return path if is_reference(path) else checked_stream(field, path, kind)
        except InvalidTask as error:
            raise InvalidTask(f"task {self.task_id!r}: {error}") from None

    def _marked_fields(self, names: Iterable[str] = MARKED) -> dict[str, Any]:
        """Return the fields that can contain markers, with these, as fields of a task; empty ones are left out.

        :raises InvalidTask: when a template has rendered one to another type.
        """
        fields = {field: self._markers.restore(getattr(self, field), field) for field in names}
        check_types(fields)
        return {"kwargs" if field == "op_kwargs" else field: value for field, value in fields.items() if value}

    def _up_to_date_result(self, context: Context, run: TaskRunner) -> ModuleResult | None:
        """Return the result recorded with the products, if they are up to date."""
        if self.run_when == "always":
            return None
        is_in_instances = self.get_closest_mapped_task_group() is not None
        upstream = pull_upstream_runs(self.stale_after, context["ti"], is_in_instances=is_in_instances)
        run.runs_before = upstream.runs
        if self.run_when != "never" and (reason := self._clear_reason(context)):
            self.log.info("Running: %s", reason)
            return None
        with failing_at_once():
            decision, result = run.decision((), upstream.reran, is_alone=True)
        if decision.must_run:
            self.log.info("Running: %s", decision.reason)
            return None
        if self.run_when == "never" and (missing := run.missing_product()):
            raise AirflowFailException(f"run_when='never', and {missing}; provide it, or use another run_when")
        self.log.info("Not running: %s", decision.reason)
        push_run_info(context["ti"], run.latest_run(), reran=False)
        self.outlets = []  # no asset event: nothing has changed
        return ModuleResult(result)

    def _clear_reason(self, context: Context) -> str | None:
        """Return why the task counts as cleared by a user, as a clause; ``None`` if it does not.

        Airflow raises ``max_tries`` only when a user clears a task that has run. For a task that has never run, Airflow
        reports only that some task of the DAG run was cleared.
        """
        ti = context["ti"]
        if ti.max_tries > (self.retries or 0):
            return "the task was cleared"
        if ti.try_number == 1 and context["dag_run"].clear_number:
            return "tasks of the DAG run were cleared before this one ran first"
        return None

    def _settings(self, dag: Any, hook: SewerHook | None) -> ExecutionSettings:
        own = ExecutionSettings.checked(
            python=self.python,
            env=reveal_secrets(self.env),
            inherit_env=self.inherit_env,
            workdir=self.workdir,
            folder=self._folder or folder_of(dag),
        )
        return own.with_fallback(hook.settings) if hook else own

    def _log_start(self, command_line: str, workdir: str | None) -> None:
        self.log.info("Running %s in %s", command_line, workdir or os.getcwd())

    def _skip_if_requested(self, exit_code: int | None) -> None:
        """Skip the task if the module's exit code is in ``skip_on_exit_code``."""
        codes = self.skip_on_exit_code
        listed = () if codes is None else (codes,) if isinstance(codes, int) else codes
        if exit_code is not None and exit_code in listed:
            raise AirflowSkipException(f"{self.module or self.function} exited with {exit_code}") from None

    def _check_known_fields(self) -> None:
        """Check the fields at parse time, except for templates and XComs."""
        fields = {field: known(getattr(self, field)) for field in self.template_fields}
        literal = {field: None if is_template(value) else value for field, value in fields.items()}
        try:
            self._check(fields, literal)
        except InvalidTask as error:
            raise InvalidTask(f"task {self.task_id!r}: {error}") from None

    def _check(self, fields: Mapping[str, Any], literal: Mapping[str, Any]) -> None:
        has_products = self._returns_paths or bool(self._markers.products() or self.products or self.stdout)
        check_fields(self, fields, literal, has_products=has_products)
        stdout = checked_stream("stdout", fields["stdout"], Product)
        kinds = {"products": Product, "dependencies": Dependency}
        listed = [kind(path) for field, kind in kinds.items() for path in known(literal[field]) or ()]
        reject_shared_stdout(stdout, [*self._markers.outside("stdout"), *listed])


@contextmanager
def failing_at_once() -> Iterator[None]:
    """Fail the task without a retry for an error in the block that a retry would meet as well."""
    try:
        yield
    except (InvalidTask, UntrustedPath) as error:
        raise AirflowFailException(error.message) from None


def hook_of(sewer_conn_id: str | None) -> SewerHook | None:
    """Return the hook of a connection, if there is one."""
    return SewerHook(sewer_conn_id) if sewer_conn_id else None


def _as_list(field: str, value: Any) -> Any:
    """Return an iterator or a single path as a list.

    :raises InvalidTask: if the iterator has too many values.
    """
    if isinstance(value, (PathMarker, os.PathLike)):
        return [value]
    return bounded_list(field, value) if isinstance(value, Iterator) else value


def folder_of(dag: Any) -> str:
    """Return the folder of the file of a DAG."""
    return os.path.dirname(os.path.abspath(str(dag.fileloc)))
