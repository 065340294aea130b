"""A task → the operator that runs it, or several → a mapped one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.definitions._internal.contextmanager import DagContext, TaskGroupContext

from airflow_provider_sewer.core.command import shown as shown_command
from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.runtime_values import RuntimeValue
from airflow_provider_sewer.core.secret_detection import secret_texts
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.core.values import Result, deep_copy_plain, markers, replace_placeholders
from airflow_provider_sewer.operators.assets import PathBase
from airflow_provider_sewer.operators.module import (
    PythonModuleOperator,
    are_secrets_named,
    warn_of_secret,
)
from airflow_provider_sewer.operators.operator_cloner import PER_TASK_FIELDS
from airflow_provider_sewer.task_group.dag_values import refuse_in_operator_kwargs
from airflow_provider_sewer.task_group.expand_over_result import ResultExpansion
from airflow_provider_sewer.task_group.operator_fields import check_operator_kwargs, split_operator_kwargs
from airflow_provider_sewer.task_group.task_converter import convert, convert_partial

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow.sdk import BaseOperator, XComArg
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.values import Marker
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.operators.operator_cloner import OperatorCloner
    from airflow_provider_sewer.operators.xcom_references import FromXCom
    from airflow_provider_sewer.task_group.dag_values import DagValues
    from airflow_provider_sewer.task_group.defaults import GroupDefaults
    from airflow_provider_sewer.task_group.wiring import UpstreamRefs


def make_mapped_operator(
    mapped: MappedTask, loaded: Workflow, task_id: str, around: GroupDefaults, dag_folder: str, wiring: UpstreamRefs
) -> MappedOperator:
    """Make one mapped Airflow task of tasks that differ by some values only."""
    first = loaded.tasks[mapped[0].name]
    token = are_secrets_named.set(True)
    _warn_of_secrets(*(each.renamed(mapped.name) for each in mapped))
    try:
        doc = _doc(mapped.template, first.settings.with_fallback(around.settings).env)
        shown = {"doc_md": doc, "map_index_template": _index_template(mapped)}
        kind, fields = _fields(first, around, dag_folder, shown)
        fields |= {"task_id": task_id, "task_display_name": mapped.name}
        tasks = [loaded.tasks[task.name] for task in mapped.distinct] if mapped.is_known_beforehand else []
        make = _known_instances if mapped.is_known_beforehand else _later_instances
        each, same = make(mapped, tasks, around, wiring, fields)
        partial = convert_partial(first.renamed(mapped.name), kind, fields | same, around.task_converter)
        operator = partial.expand_kwargs(each)
        _declare_products(operator, tasks, dag_folder)
    except Exception as error:  # whatever Airflow makes of it
        raise InvalidTask(f"{_called(mapped.name, first, around)}: {error}", mapped.source) from error
    finally:
        are_secrets_named.reset(token)
    return operator


def _known_instances(
    mapped: MappedTask, tasks: Iterable[Task], around: GroupDefaults, wiring: UpstreamRefs, fields: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what each instance of a mapped task is run with, and what all of them are.

    :param tasks: what the instances run.
    """
    several = [{"stale_after": wiring.stale_after(task.name)} for task in mapped.distinct]
    same = several[0] if all(ups == several[0] for ups in several) else {}
    runs = [_what_is_run(task, wiring.xcoms(task), around.values) for task in tasks]
    each = [run if same else run | ups for run, ups in zip(runs, several, strict=True)]
    return each, same | _arguments(around.values, fields, mapped.template, *mapped)


def _later_instances(
    mapped: MappedTask, _: Iterable[Task], around: GroupDefaults, wiring: UpstreamRefs, fields: Mapping[str, Any]
) -> tuple[XComArg, dict[str, Any]]:
    """Return the same of a task that is mapped over a result, and so has instances when that is there."""
    rows = ResultExpansion(mapped, wiring, around.values)
    task = rows.task()
    run = _what_is_run(task, wiring.xcoms(task), rows.values)
    same = {"stale_after": wiring.stale_after(mapped[0].name), **_arguments(rows.values, fields, task)}
    return rows.instances(), run | same


def _declare_products(operator: MappedOperator, tasks: Iterable[Task], dag_folder: str) -> None:
    """Make the products of all instances outlets of a mapped task; each instance keeps its own.

    :param tasks: what the instances run, as far as that is known beforehand.
    """
    kind: Any = operator.operator_class
    if not issubclass(kind, PythonModuleOperator):
        return  # what a task_converter has made of it is its own business
    paths = [product.path for task in tasks for product in task.products if not product.temporary]
    said = operator.partial_kwargs
    names = said["products_of_all"] = PathBase(said.get("workdir"), said.get("sewer_conn_id"), dag_folder).uris(paths)
    operator.outlets = [*operator.outlets, *map(Asset, names)]


def _index_template(mapped: MappedTask) -> str:
    field = "parameters_and_flags" if mapped.template.function is None else "op_kwargs"
    return ", ".join(f"{key}={{{{ task.{field}[{key!r}] }}}}" for key in mapped.values)


def make_operator(
    task: Task,
    task_id: str,
    around: GroupDefaults,
    dag_folder: str,
    wiring: UpstreamRefs | None = None,
    twins: OperatorCloner | None = None,
) -> BaseOperator:
    """Make the Airflow task of a task.

    :param wiring: what it knows of others.
    :param twins: has made others of the same workflow, and makes this one if nobody else has a say in it.
    """
    token = are_secrets_named.set(True)
    _warn_of_secrets(task)
    try:
        kind, fields = _fields(
            task, around, dag_folder, {"doc_md": _doc(task, task.settings.with_fallback(around.settings).env)}
        )
        fields |= _arguments(around.values, fields, task)
        fields |= _what_is_run(task, wiring.xcoms(task) if wiring else {}, around.values)
        fields |= {"task_id": task_id, "stale_after": wiring.stale_after(task.name) if wiring else ()}
        if twins is None or around.task_converter is not None:
            return convert(task, kind, fields, around.task_converter)
        own = {name: fields.pop(name) for name in PER_TASK_FIELDS}
        return twins.clone(kind, own, fields)
    except Exception as error:  # whatever Airflow makes of a person's operator_kwargs
        raise InvalidTask(f"{_called(task.name, task, around)}: {error}", task.source) from error
    finally:
        are_secrets_named.reset(token)


def _warn_of_secrets(*tasks: Task) -> None:
    for where, what in dict.fromkeys((task.source, what) for task in tasks for what in task.exposed_secrets()):
        warn_of_secret(f"{where}: {what}", where.file)


def _called(name: str, task: Task, around: GroupDefaults) -> str:
    """Return what to call a task in an error that can come of its file, or of what overrides say of it."""
    said = around.overrides[task.name].operator_kwargs if task.name in around.overrides else {}
    return f"task {name!r}" + (f", of which overrides say {', '.join(map(repr, said))}" if said else "")


def _fields(
    task: Task, around: GroupDefaults, dag_folder: str, shown: Mapping[str, Any]
) -> tuple[type[PythonModuleOperator], dict[str, Any]]:
    """Return the operator of a task, and its arguments but for what is run.

    :param shown: arguments that only say how it is shown, for which the DAG file may say something else.
    """
    run_on = task.run_on or around.run_on or "local"
    for_slurm, for_all = split_operator_kwargs(task.operator_kwargs)
    said = {**around.operator_kwargs, **for_all}
    given = deep_copy_plain({**_pool(task, said), **said})  # other groups and tasks have the same
    check_operator_kwargs(given, for_slurm if run_on == "local" else {})
    refuse_in_operator_kwargs(given)
    own = task.settings.map_paths(lambda path: _from_dag_file(path, task, dag_folder)).with_fallback(around.settings)
    fields = {
        "sewer_conn_id": around.sewer_conn_id,
        "python": own.python,
        "env": dict(own.env) or None,
        "inherit_env": own.inherit_env,
        "workdir": own.workdir,
    }
    if run_on == "slurm":
        fields |= _slurm_fields(task, for_slurm, around.slurm, dag_folder)
    # What is not said here is left out, so that a default argument of the DAG or of the group can say it.
    known = {name: value for name, value in fields.items() if value is not None} | given
    always = {
        "task_display_name": task.name,
        "run_when": task.run_policy.run_when,
        "compare": task.run_policy.compare,
        "stale_with": task.run_policy.stale_with,
    }
    return _operator_class(run_on), {**shown, **_defaults(shown), **always, **known}


def _defaults(names: Iterable[str]) -> dict[str, Any]:
    """Return the default arguments of these names that hold for the operator that is being made."""
    dag: Any = DagContext.get_current()
    group: Any = TaskGroupContext.get_current(dag)
    said = {**dag.default_args, **(group.default_args if group else {})}
    return {name: said[name] for name in names if name in said}


def _arguments(values: DagValues, fields: Mapping[str, Any], *tasks: Task) -> dict[str, Any]:
    """Return by their names the values, known only when the task runs, that it is given."""
    run = [
        [each.target, each.parameters_and_flags, each.args, each.kwargs, each.products, each.dependencies]
        for each in tasks
    ]
    said = {name: value for name, value in fields.items() if name != "doc_md"}  # which shows what is said elsewhere
    named = values.named_in(said, run)
    return {"arguments": named} if named else {}


def _what_is_run(task: Task, xcoms: Mapping[Result, FromXCom], values: DagValues) -> dict[str, Any]:
    def fill(marker: Marker) -> Any:
        if isinstance(marker, RuntimeValue):
            return values.reference(marker)
        if isinstance(marker, Result) and marker not in xcoms:
            raise InvalidTask(
                f"{marker!r} is the result of a task that is not here; select it too, or expand the whole workflow"
            )
        return xcoms.get(marker, marker) if isinstance(marker, Result) else marker

    has_paths = task.products or task.dependencies
    inside = markers([task.parameters_and_flags, task.args, task.kwargs]) if has_paths else []
    return {
        "module": task.module,
        "parameters_and_flags": replace_placeholders(task.parameters_and_flags, fill, keep_ignored=True),
        "args": replace_placeholders(task.args, fill, keep_ignored=True),
        "use_underscores": task.use_underscores,
        "function": task.function,
        "op_kwargs": replace_placeholders(task.kwargs, fill, keep_ignored=True),
        "products": [product for product in task.products if product not in inside],
        "dependencies": [dependency for dependency in task.dependencies if dependency not in inside],
    }


def _pool(task: Task, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pool that limits how many tasks take a resource at once.

    :param said: what is said of the operator.
    """
    if len(task.resources) > 1 and "pool" in said:
        return {}
    if len(task.resources) > 1:
        names = ", ".join(map(repr, task.resources))
        raise InvalidTask(f"resources: {names}: an Airflow task takes from one pool only; name it in operator_kwargs")
    return next(({"pool": name, "pool_slots": amount} for name, amount in task.resources.items()), {})


def _operator_class(run_on: str) -> type[PythonModuleOperator]:
    if run_on == "local":
        return PythonModuleOperator
    # Most DAG files name no cluster, and need not wait for what belongs to one.
    from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

    return SlurmModuleOperator


def _slurm_fields(
    task: Task, operator_kwargs: Mapping[str, Any], around: SlurmSettings, dag_folder: str
) -> dict[str, Any]:
    own = SlurmSettings.checked(**operator_kwargs, folder=task.source.folder)
    own = own.map_paths(lambda path: _from_dag_file(path, task, dag_folder))
    settings = task.slurm.with_fallback(own).with_fallback(around)
    return settings._asdict() | {"slurm": deep_copy_plain(dict(settings.slurm)) or None}


def _doc(task: Task, env: Mapping[str, str]) -> str:
    command = shown_command(["python", *task.call().argv], secret_texts(env))
    tags = f"\n\nTags: {', '.join(task.tags)}" if task.tags else ""
    return f"{task.doc}\n\n```\n{command}\n```{tags}".strip()


def _from_dag_file(path: str, task: Task, dag_folder: str) -> str:
    """Write a path that lies by the workflow file as one from the DAG file.

    The folder of both can be another one on each worker, so it must not be part of the task.
    """
    return os.path.relpath(path, dag_folder) if path.startswith(task.source.folder + os.sep) else path
