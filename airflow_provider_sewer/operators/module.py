"""Airflow operator that runs a Python module or function in an external interpreter."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.definitions.mappedoperator import OperatorPartial
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_sewer.core.call import checked_kwargs, function_call
from airflow_provider_sewer.core.cli_args import to_arguments
from airflow_provider_sewer.core.errors import InvalidTask, ModuleFailed, SecretWarning, UntrustedPath
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.paths import PathMarker, checked_text
from airflow_provider_sewer.core.secret_detection import exposed, secret_texts
from airflow_provider_sewer.core.size_limits import MAX_SECONDS, bounded_list
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.staleness import RunPolicy
from airflow_provider_sewer.core.task import Task, checked_target
from airflow_provider_sewer.core.validation import is_template
from airflow_provider_sewer.execution.module_runner import GRACE, ModuleResult, RunEnvironment
from airflow_provider_sewer.execution.task_log import log_output
from airflow_provider_sewer.execution.task_runner import TaskRunner
from airflow_provider_sewer.hooks.sewer import SewerHook, mask_secrets
from airflow_provider_sewer.operators.assets import PathBase
from airflow_provider_sewer.operators.dag_test_signals import interruptible
from airflow_provider_sewer.operators.logical_date import NamesMissingDate
from airflow_provider_sewer.operators.openlineage import lineage_of
from airflow_provider_sewer.operators.overlapping_runs import claim_temporary, warn_of_other_runs
from airflow_provider_sewer.operators.secret_fields import (
    hide_in_mapped,
    hide_secrets,
    reveal_secrets,
    rows_of,
    stored_in_defaults,
    stored_secrets,
)
from airflow_provider_sewer.operators.template_fields import TemplateFields
from airflow_provider_sewer.operators.template_markers import TemplateMarkers
from airflow_provider_sewer.operators.workdir_warning import OncePerDag, line_in, warn_without_workdir
from airflow_provider_sewer.operators.xcom import check_for_mapping, pull_upstream_runs, push_run_info
from airflow_provider_sewer.operators.xcom_references import is_reference

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import ExpandInput
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_sewer.core.environment import Inherit
    from airflow_provider_sewer.core.task import Path

Prepared = TypeVar("Prepared")

#: Set while operators are created from tasks, which report their secrets with the line of the task.
are_secrets_named: ContextVar[bool] = ContextVar("are_secrets_named", default=False)
is_first_of = OncePerDag()
#: Placeholder for the name of a module or function that is known only at run time.
_RUNTIME_NAME = "{{ … }}"
_AIRFLOWS_KEYS = frozenset({"__classname__", "__version__", "__data__", "__type", "__var"})


class PythonModuleOperator(NamesMissingDate, TemplateFields, BaseOperator):
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
        "python", "env", "workdir", "sewer_conn_id",
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
        self._folder = _folder_of(self.dag) if self.has_dag() else None  # type: ignore[no-untyped-call]
        self._check_known_fields()
        self._warn_of_secrets()
        listed = (_known(self.products), _known(self.dependencies))
        warn_without_workdir(self, [*self._markers.paths(), *chain.from_iterable(paths or () for paths in listed)])
        self.outlets = [*self._outlets_given(), *map(Asset, self._asset_names())]

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
        self._mask_fields()
        super()._do_render_template_fields(*args, **kwargs)
        self._mask_fields()

    def execute(self, context: Context) -> Any:
        """Run the module and return its result.

        :raises SewerError: when the module cannot be run, fails, or is terminated.
        """
        with interruptible(context, is_supervised=supervisor() is not None):
            try:
                return self._run(context)
            except UntrustedPath as error:  # a retry would fail in the same way
                raise AirflowFailException(error.message) from None

    def _run(self, context: Context) -> Any:
        hook = self._hook()
        self._task_run = self._prepared(lambda: self._new_run(context, hook))
        if self._killed:
            self._task_run.stop()
        claim_temporary(self._task_run.task, context, self.log.warning)
        if (current := self._up_to_date_result(context, self._task_run)) is not None:
            return self._checked_result(context, current.value)
        self._task_run.dag_run = warn_of_other_runs(self._task_run.task, context, self.log.warning)
        try:
            result = self._task_run.run(log_output, on_start=self._log_start)
        except ModuleFailed as error:
            self._skip_if_requested(error.exit_code)
            raise
        self._push_run_info(context, self._task_run)
        return self._checked_result(context, result)

    def on_kill(self) -> None:
        """Terminate the module and its child processes; :meth:`execute` waits for their end."""
        self._killed = True
        if self._task_run:
            self._task_run.stop()

    def _mask_fields(self) -> None:
        mask_secrets(self._secrets_in_fields())

    def _secrets_in_fields(self) -> tuple[str, ...]:
        """Return the secrets in the fields, which other fields can contain under other names."""
        fields = {field: getattr(self, field) for field in self.template_fields}
        return tuple(secret_texts({}, data={**fields, "env": reveal_secrets(self.env)}))

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the dependencies and products of the task for OpenLineage."""
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002 - OpenLineage's
        """Return only the dependencies: a failed task has no products."""
        lineage = self._lineage()
        return type(lineage)(inputs=lineage.inputs)

    def _lineage(self) -> OperatorLineage[Any, Any]:
        task = self._sewer_task(cast("Context", {"dag": self.dag}), self._hook())
        own = self._asset_names()
        return lineage_of(
            task.dependencies,
            task.products,
            task.settings.workdir,
            inlets=self.inlets,
            outlets=[outlet for outlet in self.outlets if getattr(outlet, "name", None) not in own],
            is_here=self._runs_here,
        )

    def _new_run(self, context: Context, hook: SewerHook | None) -> TaskRunner:
        return TaskRunner(
            self._sewer_task(context, hook),
            {},
            RunEnvironment(seconds(self.termination_grace_period), supervisor()),
            secrets=(*self._secrets_in_fields(), *(hook.secret_env.values() if hook else ())),
        )

    def _sewer_task(self, context: Context, hook: SewerHook | None) -> Task:
        """Return this operator, with its templates rendered, as a workflow task."""
        task = Task(
            self.task_id,
            self.module,
            use_underscores=self.use_underscores,
            args=self._restored("args", _list),
            function=self.function,
            **self._call_arguments(),
            products=self._restored("products", _list),
            dependencies=self._restored("dependencies", _list),
            run_when=self.run_when,
            compare=self.compare,
            stale_with=self.stale_with,
        )
        for path in (*task.products, *task.dependencies):
            checked_text(type(path).__name__, path, may_be_template=False)
        task.source = SourceLine(str(context["dag"].fileloc), 0)
        return task.with_settings(self._settings(context, hook))

    def _call_arguments(self) -> dict[str, Any]:
        """Return the arguments of the module or function, as fields of a task."""
        return {
            "parameters_and_flags": self._restored("parameters_and_flags", _mapping),
            "kwargs": self._restored("op_kwargs", _mapping),
        }

    def _restored(self, field: str, checked: Callable[[str, Any], Any]) -> Any:
        return self._markers.restore(checked(field, getattr(self, field)), field)

    def _prepared(self, prepare: Callable[[], Prepared]) -> Prepared:
        """Return the result of ``prepare``; if it raises, fail without a retry, which would fail as well."""
        try:
            return prepare()
        except (InvalidTask, UntrustedPath) as error:
            raise AirflowFailException(error.message) from None

    def _up_to_date_result(self, context: Context, run: TaskRunner) -> ModuleResult | None:
        """Return the result recorded with the products, if they are up to date."""
        if self.run_when == "always":
            return None
        is_in_instances = self.get_closest_mapped_task_group() is not None
        upstream = pull_upstream_runs(self.stale_after, context, is_in_instances=is_in_instances)
        run.runs_before = upstream.runs
        if self.run_when != "never" and (reason := self._clear_reason(context)):
            self.log.info("Running: %s", reason)
            return None
        decision, result = self._prepared(lambda: run.decision((), upstream.reran, is_alone=True))
        if decision.must_run:
            self.log.info("Running: %s", decision.reason)
            return None
        if self.run_when == "never" and (missing := run.missing_product()):
            raise AirflowFailException(f"run_when='never', and {missing}; provide it, or use another run_when")
        self.log.info("Not running: %s", decision.reason)
        push_run_info(context, run.latest_run(), reran=False)
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

    def _checked_result(self, context: Context, value: Any) -> Any:
        """Return a result; raise if it cannot be an XCom, or if tasks cannot be mapped over it."""
        map_index = context["ti"].map_index
        is_instance = map_index is not None and map_index >= 0
        self._prepared(lambda: check_for_mapping(self, value, is_instance=is_instance))
        return check_xcom_value(value)

    def _push_run_info(self, context: Context, run: TaskRunner) -> None:
        if self.run_when != "always":
            push_run_info(context, run.latest_run(), reran=True)

    def _hook(self) -> SewerHook | None:
        return SewerHook(self.sewer_conn_id) if self.sewer_conn_id else None

    def _settings(self, context: Context, hook: SewerHook | None) -> ExecutionSettings:
        own = ExecutionSettings.checked(
            python=self.python,
            env=reveal_secrets(self.env),
            inherit_env=self.inherit_env,
            workdir=self.workdir,
            folder=self._dag_folder(context),
        )
        return own.with_fallback(hook.settings) if hook else own

    def _dag_folder(self, context: Context) -> str:
        return self._folder or _folder_of(context["dag"])

    def _log_start(self, command_line: str, workdir: str | None) -> None:
        self.log.info("Running %s in %s", command_line, workdir or os.getcwd())

    def _skip_if_requested(self, exit_code: int | None) -> None:
        """Skip the task if the module's exit code is in ``skip_on_exit_code``."""
        codes = self.skip_on_exit_code
        listed = () if codes is None else (codes,) if isinstance(codes, int) else codes
        if exit_code is not None and exit_code in listed:
            raise AirflowSkipException(f"{self.module or self.function} exited with {exit_code}") from None

    def _outlets_given(self) -> list[Any]:
        """Return the outlets given by the user, without products of other instances."""
        of_all = self.products_of_all or ()
        return [outlet for outlet in self.outlets if getattr(outlet, "name", None) not in of_all]

    def _asset_names(self) -> list[str]:
        """Return the asset names of the products; of a mapped task, only those known to the DAG."""
        if not self._markers and not self.products:
            return []
        temporary = {product.path for product in self._markers.products() if product.temporary}
        listed = [path for path in _known(self.products) or () if isinstance(path, str)]
        paths = [path for path in (*(each.path for each in self._markers.products()), *listed) if path not in temporary]
        try:
            names = PathBase(self.workdir, self.sewer_conn_id, self._folder).uris(paths)
        except InvalidTask as error:
            raise InvalidTask(f"task {self.task_id!r}: {error}") from None
        return names if self.products_of_all is None else [name for name in names if name in self.products_of_all]

    def _can_have_products(self) -> bool:
        """Return whether the task may have products, as far as known at parse time."""
        return bool(self._markers.products() or self.products)

    def _check_known_fields(self) -> None:
        """Check the fields at parse time, except for templates and XComs."""
        known = {field: _known(getattr(self, field)) for field in self.template_fields}
        literal = {field: None if is_template(known[field]) else known[field] for field in self.template_fields}
        try:
            self._check(known, literal)
        except InvalidTask as error:
            raise InvalidTask(f"task {self.task_id!r}: {error}") from None

    def _warn_of_secrets(self) -> None:
        warn_of_secrets(self.task_id, self._dag, vars(self))

    def _check(self, known: dict[str, Any], literal: dict[str, Any]) -> None:
        """Check the fields.

        :param known: the template fields, without values known only at run time.
        :param literal: the same, without fields that are a single template.
        :raises InvalidTask: naming the invalid field.
        """
        target = ("module", "function")
        checked_target(*(_RUNTIME_NAME if is_reference(getattr(self, field)) else known[field] for field in target))
        to_arguments(
            _mapping("parameters_and_flags", literal["parameters_and_flags"]), args=_list("args", literal["args"])
        )
        function_call("", checked_kwargs(_mapping("op_kwargs", literal["op_kwargs"])))
        for field in ("products", "dependencies"):
            for path in _list(field, literal[field]):
                checked_text(field, path)
        RunPolicy.checked(self.run_when, self.compare, self.stale_with, has_products=self._can_have_products())
        seconds(self.termination_grace_period)
        _check_codes(self.skip_on_exit_code)
        ExecutionSettings.checked(
            python=known["python"],
            env=reveal_secrets(literal["env"]),
            inherit_env=self.inherit_env,
            workdir=known["workdir"],
        )


class HidingPartial(OperatorPartial):
    """Partial operator that reports and hides the secrets in the arguments it is mapped over."""

    def _expand(self, expand_input: ExpandInput, *, strict: bool) -> MappedOperator:
        operator = super()._expand(expand_input, strict=strict)
        warn_of_secrets(operator.task_id, operator.dag, *rows_of(expand_input))
        hide_in_mapped(operator)
        return operator


def warn_of_secrets(task_id: str, dag: Any, *given: Mapping[str, Any]) -> None:
    """Warn at parse time of secrets that other users could read in a command line, a job script or the stored DAG.

    :param given: fields of an operator, or of several instances of a mapped one.
    """
    found: list[str] = []
    for fields in given:
        if not are_secrets_named.get():
            found += exposed(*map(fields.get, ("parameters_and_flags", "args", "op_kwargs", "slurm")))
            found += exposed({}, (), fields.get("arguments"), {})
        found += stored_secrets(fields.get("env"))
    found = [f"task {task_id!r}: {text}" for text in dict.fromkeys(found)]
    if is_first_of(dag):
        found += stored_in_defaults(dag)
    if found:
        file = str(getattr(dag, "fileloc", ""))
        line = SourceLine(file, line_in(file))
        for text in found:
            warn_of_secret(f"{line}: {text}", file)


def warn_of_secret(message: str, file: str) -> None:
    """Warn of a secret, without a line number: Python would print that line, and the secret in it."""
    warnings.warn_explicit(message, SecretWarning, file or "<unknown>", 0)


def _as_list(field: str, value: Any) -> Any:
    """Return an iterator or a single path as a list.

    :raises InvalidTask: if the iterator has too many values.
    """
    if isinstance(value, (PathMarker, os.PathLike)):
        return [value]
    return bounded_list(field, value) if isinstance(value, Iterator) else value


def _folder_of(dag: Any) -> str:
    return os.path.dirname(os.path.abspath(str(dag.fileloc)))


def supervisor() -> int | None:
    """Return the pid of the process that supervises this task; ``None`` in ``dag.test()``."""
    # Imported here: a worker has loaded it already, and DAG files parse faster without it.
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return os.getppid() if isinstance(comms, CommsDecoder) else None


def _known(value: Any) -> Any:
    """Return a value without the parts known only at run time; ``None`` for an XCom as a whole."""
    if is_reference(value):
        return None
    if isinstance(value, Mapping):
        return {key: _known(item) for key, item in value.items() if not is_reference(item)}
    if isinstance(value, (list, tuple)):
        return [_known(item) for item in value if not is_reference(item)]
    return value


def _mapping(field: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidTask(f"{field} must be a mapping, got {type(value).__name__}")
    return {key: _plain(item) for key, item in (value or {}).items()}


def _list(field: str, value: Any) -> list[Any]:
    value = _plain(value)
    if value is not None and not isinstance(value, (list, tuple)):
        raise InvalidTask(f"{field} must be a list, got {value!r:.200}")
    return list(value or ())


def _plain(value: Any) -> Any:
    """Convert lazy XCom sequences of mapped tasks to lists, at any depth."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, range)):
        return [_plain(item) for item in value]
    return value


def seconds(value: Any) -> float:
    """Return a termination grace period in seconds.

    :raises InvalidTask: if it is neither a number nor a timedelta.
    """
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= MAX_SECONDS:
        message = f"termination_grace_period must be seconds or a timedelta, got {value!r:.200}"
        raise InvalidTask(f"{message}; at most {MAX_SECONDS:,} s")
    return float(number)


def _check_codes(codes: Any) -> None:
    listed = [codes] if isinstance(codes, int) or codes is None else codes
    if isinstance(listed, str) or not isinstance(listed, Container):
        raise InvalidTask(f"skip_on_exit_code must be an exit code or several, got {codes!r:.200}")
    if isinstance(listed, Iterable) and not all(code is None or isinstance(code, int) for code in listed):
        raise InvalidTask(f"skip_on_exit_code must contain integers only, got {codes!r:.200}")


def check_xcom_value(value: Any) -> Any:
    """Return a result if it can be an XCom.

    Airflow encodes XComs as msgpack and JSON, and reserves some keys. Its own error would come much later and would not
    name the value.

    :raises ModuleFailed: if it cannot, with the reason.
    """
    if problem := next(_problems(value, ()), None):
        raise ModuleFailed(f"the module exited with 0, but Airflow cannot store its result: {problem}", exit_code=0)
    return value


def _problems(value: Any, keys: tuple[Any, ...]) -> Iterator[str]:
    """Yield the reasons why a result, or a value in it, cannot be an XCom.

    :param keys: the keys that lead to the value.
    """
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        yield f"a number of {len(str(value))} digits does not fit into 64 bits; return it as text"
    if isinstance(value, str) and (reason := _invalid_part(value)):
        yield f"{_location(keys)} {reason}"
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value if type(value) is list else ()):
        if key in _AIRFLOWS_KEYS:
            yield f"the key {key!r} is reserved by Airflow"
        if isinstance(key, str) and (reason := _invalid_part(key)):
            yield f"a key of {_location(keys)} {reason}"
        yield from _problems(item, (*keys, key))


def _invalid_part(text: str) -> str | None:
    if "\0" in text:
        return "contains a NUL character, which PostgreSQL cannot store; remove it"
    is_unicode = text.isascii() or text == text.encode("utf-8", "ignore").decode()
    return None if is_unicode else "is not valid Unicode"


def _location(keys: tuple[Any, ...]) -> str:
    return "result" + "".join(f"[{key!r:.80}]" for key in keys)
