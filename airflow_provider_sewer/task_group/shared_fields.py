"""Arguments of operators that tasks with equal settings have in common."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.definitions._internal.contextmanager import DagContext, TaskGroupContext

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.execution_settings import UNSET
from airflow_provider_sewer.core.placeholders import PLAIN, deep_copy_plain
from airflow_provider_sewer.core.retry_requests import reject_missing_amounts
from airflow_provider_sewer.core.secret_detection import secret_texts
from airflow_provider_sewer.core.slurm_settings import UNSET as UNSET_SLURM
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.operators.module import PythonModuleOperator
from airflow_provider_sewer.task_group.argument_checks import check_operator_kwargs, split_operator_kwargs
from airflow_provider_sewer.task_group.dag_values import reject_runtime_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.task_group.dag_values import DagValues
    from airflow_provider_sewer.task_group.group_defaults import GroupDefaults

#: Name in ``arguments`` of an operator for the secret arguments of its workflow; it cannot be the name of another one.
_SECRETS = "secret arguments"


class OperatorFields(NamedTuple):
    """Operator class and arguments of tasks with equal settings.

    :param kind: the class.
    :param arguments: the arguments except those of the command; not to be changed.
    :param secrets: the secrets in the environment, each with the name of its variable.
    """

    kind: type[PythonModuleOperator]
    arguments: Mapping[str, Any]
    secrets: Mapping[str, str]


class SharedFields:
    """Operator classes and arguments that tasks share, made once for all tasks with equal settings.

    :param defaults: the defaults of the task group.
    :param dag_folder: the folder of the DAG file.
    """

    def __init__(self, defaults: GroupDefaults, dag_folder: str) -> None:
        self.defaults = defaults
        self.dag_folder = dag_folder
        self._by_settings: dict[Any, OperatorFields] = {}
        self._by_arguments: dict[Any, OperatorFields] = {}

    def of(self, task: Task) -> OperatorFields:
        """Return the fields of a task in the current group."""
        key = (
            id(TaskGroupContext.get_current(DagContext.get_current())),
            task.source.file,
            task.run_on,
            task.run_policy,
            None if task.settings is UNSET else _key(task.settings),
            None if task.slurm is UNSET_SLURM else _key(task.slurm),
            _key(task.operator_kwargs) if task.operator_kwargs else None,
            _key(task.resources) if task.resources else None,
        )
        if key not in self._by_settings:
            self._by_settings[key] = _fields(task, self.defaults, self.dag_folder)
        return self._by_settings[key]

    def with_arguments(self, task: Task) -> OperatorFields:
        """Return the fields of a task in the current group, including the arguments of the workflow that it uses."""
        fields = self.of(task)
        named = arguments_of(self.defaults.values, fields.arguments, task, secrets=task.secrets)
        if not named:
            return fields
        key = (id(fields), _key(named))
        return self._by_arguments.setdefault(key, fields._replace(arguments={**fields.arguments, **named}))


def _fields(task: Task, defaults: GroupDefaults, dag_folder: str) -> OperatorFields:
    run_on = task.run_on or defaults.run_on or "local"
    for_slurm, for_all = split_operator_kwargs(task.operator_kwargs)
    for_all = {**defaults.operator_kwargs, **for_all}
    given = deep_copy_plain({**_pool(task, for_all), **for_all})  # other groups and tasks share these values
    check_operator_kwargs(given, for_slurm if run_on == "local" else {})
    reject_runtime_values(given)
    own = task.settings.map_paths(lambda path: _from_dag_file(path, task, dag_folder)).with_fallback(defaults.settings)
    fields = {
        "sewer_conn_id": defaults.sewer_conn_id,
        "python": own.python,
        "env": dict(own.env) or None,
        "inherit_env": own.inherit_env,
        "workdir": own.workdir,
    }
    if run_on == "slurm":
        for_job = _slurm_fields(task, for_slurm, defaults.slurm, dag_folder)
        # A mapped operator is checked only when it runs. Default arguments and a connection may request more.
        may_request_more = defaults.sewer_conn_id or "sewer_conn_id" in given
        if not may_request_more and not from_default_args(("slurm", "sewer_conn_id")):
            reject_missing_amounts(for_job["retry_with"], for_job["slurm"] or {})
        fields |= for_job
    # Unset fields are omitted, so that default arguments of the DAG or group apply.
    known = {name: value for name, value in fields.items() if value is not None} | given
    always = {
        "run_when": task.run_policy.run_when,
        "compare": task.run_policy.compare,
        "stale_with": task.run_policy.stale_with,
    }
    arguments = {**from_default_args(("doc_md",)), **always, **known}
    return OperatorFields(_operator_class(run_on), arguments, secret_texts(own.env))


def from_default_args(names: Iterable[str]) -> dict[str, Any]:
    """Return the named default arguments that apply in the current DAG and group."""
    dag: Any = DagContext.get_current()
    group: Any = TaskGroupContext.get_current(dag)
    default_args = {**dag.default_args, **(group.default_args if group else {})}
    return {name: default_args[name] for name in names if name in default_args}


def arguments_of(
    values: DagValues, fields: Mapping[str, Any], *tasks: Task, secrets: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the field ``arguments`` of an operator with the run-time values that it uses and with secrets, if any.

    :param values: the run-time values of the DAG.
    :param fields: the other fields of the operator.
    :param tasks: its tasks.
    :param secrets: the secret arguments of the workflow.
    """
    if not values and not secrets and not values.secret_templates:
        return {}
    commands = [
        [each.target, each.parameters_and_flags, each.args, each.kwargs, each.products, each.dependencies]
        for each in tasks
    ]
    settings = {name: value for name, value in fields.items() if name != "doc_md"}  # it only repeats other fields
    hidden = [*secrets, *values.secret_templates_in(settings, commands)]
    named = ({_SECRETS: hidden} if hidden else {}) | values.named_in(settings, commands)
    return {"arguments": named} if named else {}


def _pool(task: Task, operator_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pool and slots that stand for the task's resource."""
    if len(task.resources) > 1 and "pool" in operator_kwargs:
        return {}
    if len(task.resources) > 1:
        names = ", ".join(map(repr, task.resources))
        raise InvalidTask(f"resources: {names}: an Airflow task uses one pool only; set 'pool' in operator_kwargs")
    return next(({"pool": name, "pool_slots": amount} for name, amount in task.resources.items()), {})


def _operator_class(run_on: str) -> type[PythonModuleOperator]:
    if run_on == "local":
        return PythonModuleOperator
    # Imported here because most DAG files do not use Slurm, and the import slows down parsing.
    from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

    return SlurmModuleOperator


def _slurm_fields(
    task: Task, operator_kwargs: Mapping[str, Any], defaults: SlurmSettings, dag_folder: str
) -> dict[str, Any]:
    own = SlurmSettings.checked(**operator_kwargs, folder=task.source.folder)
    own = own.map_paths(lambda path: _from_dag_file(path, task, dag_folder))
    settings = task.slurm.with_fallback(own).with_fallback(defaults)
    return settings._asdict() | {"slurm": deep_copy_plain(dict(settings.slurm)) or None}


def _from_dag_file(path: str, task: Task, dag_folder: str) -> str:
    """Return a path below the workflow file's folder relative to the DAG file's folder.

    Each worker may have both in another folder, so the absolute path must not be part of the task.
    """
    return os.path.relpath(path, dag_folder) if path.startswith(task.source.folder + os.sep) else path


def _key(value: Any) -> Any:
    """Return a key that is equal for equal data; for other values, for the same object."""
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if kind is dict:
        return kind, tuple((name, _key(item)) for name, item in value.items())
    if kind is list or isinstance(value, tuple):
        return kind, tuple(map(_key, value))
    return kind, id(value)
