"""Conversion of tasks to Airflow operators, and of mapped tasks to mapped operators."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_provider_sewer.core.command import shown_call
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.placeholders import (
    Result,
    RuntimeValue,
    deep_copy_plain,
    replace_placeholders,
)
from airflow_provider_sewer.operators.assets import PathBase
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.operators.secret_warnings import are_secrets_named, warn_of_secret
from airflow_provider_sewer.task_group.expand_over_result import ResultExpansion
from airflow_provider_sewer.task_group.shared_fields import arguments_of, from_default_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from airflow.sdk import XComArg
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.placeholders import Marker
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.operators.operator_cloner import OperatorCloner
    from airflow_provider_sewer.operators.xcom_references import FromXCom
    from airflow_provider_sewer.task_group.dag_values import DagValues
    from airflow_provider_sewer.task_group.group_defaults import GroupDefaults
    from airflow_provider_sewer.task_group.shared_fields import SharedFields
    from airflow_provider_sewer.task_group.wiring import UpstreamRefs


def make_mapped_operator(
    mapped: MappedTask, loaded: Workflow, task_id: str, shared: SharedFields, refs: UpstreamRefs
) -> MappedOperator:
    """Create one mapped Airflow task for tasks that differ only by some values."""
    first, defaults = loaded.tasks[mapped[0].name], shared.defaults
    token = are_secrets_named.set(True)
    _warn_of_secrets(*(loaded.tasks[each.name].renamed(mapped.name) for each in mapped))
    try:
        kind, settings, secrets = shared.of(first)
        shown = {
            "doc_md": _doc(mapped.template.with_secrets(first.secrets), secrets),
            "map_index_template": _index_template(mapped),
        }
        fields = {**shown, **from_default_args(shown), **deep_copy_plain(settings)}
        fields |= {"task_id": task_id, "task_display_name": mapped.name}
        tasks = [loaded.tasks[task.name] for task in mapped.distinct]
        instances_of = _known_instances if mapped.is_known_beforehand else _runtime_instances
        each, same = instances_of(mapped, tasks, defaults, refs, fields)
        partial = convert_partial(first.renamed(mapped.name), kind, fields | same, defaults.task_converter)
        operator = partial.expand_kwargs(each)
        _declare_products(operator, tasks if mapped.is_known_beforehand else (), shared.dag_folder)
    except Exception as error:  # Airflow may raise any type
        raise InvalidTask(f"{_error_prefix(mapped.name, first, defaults)}: {error}", mapped.source) from error
    finally:
        are_secrets_named.reset(token)
    return operator


def _known_instances(
    mapped: MappedTask, tasks: Sequence[Task], defaults: GroupDefaults, refs: UpstreamRefs, fields: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the arguments of each instance of a mapped task, and the arguments common to all instances.

    :param tasks: the task of each instance.
    """
    stale_after = [{"stale_after": refs.stale_after(task.name)} for task in mapped.distinct]
    same = stale_after[0] if all(ups == stale_after[0] for ups in stale_after) else {}
    commands = [_command_fields(task, refs.xcoms(task), defaults.values) for task in tasks]
    each = [command if same else command | ups for command, ups in zip(commands, stale_after, strict=True)]
    secrets = tasks[0].secrets
    return each, same | arguments_of(defaults.values, fields, mapped.template, *mapped, secrets=secrets)


def _runtime_instances(
    mapped: MappedTask, tasks: Sequence[Task], defaults: GroupDefaults, refs: UpstreamRefs, fields: Mapping[str, Any]
) -> tuple[XComArg, dict[str, Any]]:
    """Return the same for a task mapped over a result, whose instances are known only at run time."""
    expansion = ResultExpansion(mapped, refs, defaults.values)
    task = expansion.task()
    command = _command_fields(task, refs.xcoms(task), expansion.values)
    arguments = arguments_of(expansion.values, fields, task, secrets=tasks[0].secrets)
    return expansion.instances(), command | {"stale_after": refs.stale_after(mapped[0].name), **arguments}


def _declare_products(operator: MappedOperator, tasks: Iterable[Task], dag_folder: str) -> None:
    """Declare the products of all instances as outlets of a mapped task; each instance keeps its own.

    :param tasks: the tasks of the instances known at parse time.
    """
    kind: Any = operator.operator_class
    if not issubclass(kind, PythonModuleOperator):
        return  # an operator returned by a task_converter declares its own outlets
    paths = [product.path for task in tasks for product in task.products if not product.temporary]
    given = operator.partial_kwargs
    uris = given["products_of_all"] = PathBase(given.get("workdir"), given.get("sewer_conn_id"), dag_folder).uris(paths)
    operator.outlets = [*operator.outlets, *map(Asset, uris)]


def _index_template(mapped: MappedTask) -> str:
    field = "parameters_and_flags" if mapped.template.function is None else "op_kwargs"
    return ", ".join(f"{key}={{{{ task.{field}[{key!r}] }}}}" for key in mapped.values)


def make_operator(
    task: Task,
    task_id: str,
    shared: SharedFields,
    refs: UpstreamRefs | None = None,
    cloner: OperatorCloner | None = None,
) -> BaseOperator:
    """Create the Airflow task of a task.

    :param shared: makes the arguments that it shares with other tasks.
    :param refs: resolves its references to upstream tasks.
    :param cloner: clones operators of the same workflow; used when there is no ``task_converter``.
    """
    defaults = shared.defaults
    token = are_secrets_named.set(True)
    _warn_of_secrets(task)
    try:
        kind, fields, secrets = shared.with_arguments(task)
        own = _command_fields(task, refs.xcoms(task) if refs else {}, defaults.values)
        own["task_id"], own["task_display_name"] = task_id, task.name
        own["stale_after"] = refs.stale_after(task.name) if refs else ()
        if "doc_md" not in fields:
            own["doc_md"] = _doc(task, secrets)
        if cloner is None or defaults.task_converter is not None:
            return convert(task, kind, {**deep_copy_plain(fields), **own}, defaults.task_converter)
        return cloner.clone(kind, own, fields)
    except Exception as error:  # Airflow may raise any type for operator_kwargs
        raise InvalidTask(f"{_error_prefix(task.name, task, defaults)}: {error}", task.source) from error
    finally:
        are_secrets_named.reset(token)


def _warn_of_secrets(*tasks: Task) -> None:
    for source, secret in dict.fromkeys((task.source, secret) for task in tasks for secret in task.exposed_secrets()):
        warn_of_secret(f"{source}: {secret}", source.file)


def _error_prefix(name: str, task: Task, defaults: GroupDefaults) -> str:
    """Return the task's name for an error, with its overridden arguments, which may have caused it."""
    overridden = defaults.overrides[task.name].operator_kwargs if task.name in defaults.overrides else {}
    return f"task {name!r}" + (f" (overridden: {', '.join(map(repr, overridden))})" if overridden else "")


def _command_fields(task: Task, xcoms: Mapping[Result, FromXCom], values: DagValues) -> dict[str, Any]:
    def resolve(marker: Marker) -> Any:
        if isinstance(marker, RuntimeValue):
            return values.reference(marker)
        if isinstance(marker, Result) and marker not in xcoms:
            raise InvalidTask(
                f"{marker!r} is the result of a task that is not selected; select that task too, "
                "or expand the whole workflow"
            )
        return xcoms.get(marker, marker) if isinstance(marker, Result) else marker

    return {
        "module": task.module,
        "parameters_and_flags": replace_placeholders(task.parameters_and_flags, resolve, keep_ignored=True),
        "args": replace_placeholders(task.args, resolve, keep_ignored=True),
        "use_underscores": task.use_underscores,
        "function": task.function,
        "op_kwargs": replace_placeholders(task.kwargs, resolve, keep_ignored=True),
        "products": [product for product in task.products if product not in task.markers],
        "dependencies": [dependency for dependency in task.dependencies if dependency not in task.markers],
        "stdin": task.stdin,
        "stdout": task.stdout,
    }


def _doc(task: Task, secrets: Mapping[str, str]) -> str:
    secrets = {**secrets, **task.secrets}
    command = shown_call(["python"], task.written, secrets)
    tags = f"\n\nTags: {', '.join(task.tags)}" if task.tags else ""
    return Secrets(secrets).mask(f"{task.doc}\n\n```\n{command}\n```{tags}".strip())


#: Function of a task and its operator arguments that returns arguments or an operator.
TaskConverter: TypeAlias = "Callable[[Task, dict[str, Any]], Mapping[str, Any] | BaseOperator | OperatorPartial]"


def convert(
    task: Task, kind: type[BaseOperator], arguments: Mapping[str, Any], converter: TaskConverter | None
) -> BaseOperator:
    """Create an operator, through ``converter`` if one is given.

    :raises InvalidTask: when the converter fails, or returns another type.
    """
    converted = _converted(task, arguments, converter)
    if isinstance(converted, Mapping):
        return kind(**converted)
    if not isinstance(converted, BaseOperator):
        raise InvalidTask(f"task_converter must return operator arguments or an operator, got {converted!r:.200}")
    return converted


def convert_partial(
    task: Task, kind: type[BaseOperator], arguments: Mapping[str, Any], converter: TaskConverter | None
) -> OperatorPartial:
    """Create a partial operator, through ``converter`` if one is given.

    :raises InvalidTask: when the converter fails, or returns another type.
    """
    converted = _converted(task, arguments, converter)
    if isinstance(converted, Mapping):
        return kind.partial(**converted)
    if not isinstance(converted, OperatorPartial):
        raise InvalidTask(
            "task_converter must return operator arguments or Operator.partial(…) for a mapped task, "
            f"got {converted!r:.200}"
        )
    return converted


def _converted(task: Task, arguments: Mapping[str, Any], converter: TaskConverter | None) -> Any:
    if converter is None:
        return arguments
    try:
        return converter(_copy_of(task), dict(arguments))
    except Exception as error:
        raise InvalidTask(f"task_converter: {type(error).__name__}: {error}") from error


def _copy_of(task: Task) -> Task:
    """Return a copy that a converter may change; other groups may share the task itself."""
    copied = copy.copy(task)
    vars(copied).update(deep_copy_plain(vars(task)))
    return copied
