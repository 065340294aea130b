"""Serialization of workflows as JSON, to pass them between interpreters.

It is lossless: names, parameters with placeholders, settings, edges, source lines. A value that JSON cannot represent
raises an error that names the task and the field. The tables below name every key, because other versions read the
data, and may have other names for classes and attributes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple

from airflow_provider_sewer.core.errors import KEYS, InvalidTask, SewerError, key_of
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.formats import TASK
from airflow_provider_sewer.core.mapping import MappedTask
from airflow_provider_sewer.core.paths import Dependency, External, PathMarker, Product
from airflow_provider_sewer.core.placeholders import Ignored, Result, RuntimeValue
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.staleness import RunPolicy
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The version of the format.
FORMAT = TASK.version
#: Source of the data in messages.
_HERE = "a workflow in JSON"


class _Kind(NamedTuple):
    """Class whose values are written as JSON objects.

    :param type: the class; created with its attributes as keyword arguments.
    :param attributes: attribute names by key.
    """

    type: Callable[..., Any]
    attributes: Mapping[str, str]


def _kind(kind: Callable[..., Any], *names: str) -> _Kind:
    """Return a kind whose attributes have their keys as names."""
    return _Kind(kind, {name: name for name in names})


#: Names of the composite types and of their keys. The words on the left, and the keys, stay unchanged when names in the
#: code change: see docs/development/formats.md.
_KINDS: Mapping[str, _Kind] = {
    "product": _kind(Product, "path", "atomic", "temporary", "on_failure"),
    "dependency": _kind(Dependency, "path"),
    "external": _kind(External, "path", "timeout"),
    "ignored": _kind(Ignored, "value"),
    "result": _Kind(Result, {"task": "task", "key_path": "key_path"}),
    "runtime_value": _Kind(RuntimeValue, {"stands_for": "stands_for", "key_path": "key_path"}),
    "settings": _kind(ExecutionSettings, "python", "env", "inherit_env", "workdir"),
    "slurm": _kind(
        SlurmSettings, "slurm", "run_dir", "cluster", "deferrable", "poll_interval", "max_poll_interval", "durable",
        "on_kill_action", "requeue", "max_pending_time", "fail_on_pending_reason", "lost_after", "orphan_timeout",
        "wait_for_completion", "array", "array_wait", "retry_with",
    ),
    "run_policy": _kind(RunPolicy, "run_when", "compare", "stale_with"),
    "line": _kind(SourceLine, "file", "line", "column"),
}  # fmt: skip
_KEY_OF = {kind.type: key for key, kind in _KINDS.items()}
#: The attributes of a task by their keys; all others are derived from these.
_TASK_ATTRIBUTES: Mapping[str, str] = {
    "identity": "identity",
    "line": "source",
    "mapped": "mapped_task",
    "is_template": "is_mapped",
    "name": "name",
    "module": "module",
    "parameters_and_flags": "parameters_and_flags",
    "use_underscores": "use_underscores",
    "args": "args",
    "function": "function",
    "kwargs": "kwargs",
    "settings": "settings",
    "depends_on": "depends_on",
    "paths": "_listed",
    "stdin": "stdin",
    "stdout": "stdout",
    "run_policy": "run_policy",
    "resources": "resources",
    "tags": "tags",
    "group": "group",
    "doc": "doc",
    "operator_kwargs": "operator_kwargs",
    "run_on": "run_on",
    "slurm": "slurm",
}

#: Key that marks an object as a typed value, and holds its type.
_KIND = "$"
_OF = "of"


def workflow_to_data(workflow: Workflow) -> dict[str, Any]:
    """Return a workflow as JSON data.

    :raises InvalidTask: for a value that JSON cannot represent, naming the task and the field.
    """
    writer = _Writer()
    fields = {
        "name": workflow.name,
        "doc": workflow.doc,
        "source": None if workflow.source is None else list(workflow.source),
        "is_subset": workflow.is_subset,
        "members": [writer.number(task) for task in workflow.given],
        "edges": [[writer.number(up), writer.number(down)] for up, down in workflow.explicit_edges],
    }
    return TASK.written({**fields, **writer.written()})


def workflow_of_data(data: Any) -> Workflow:
    """Return the workflow that :func:`workflow_to_data` has written.

    :raises UnreadableRecord: when the data are of another version, or incomplete.
    """
    tasks = _read_tasks(data, _HERE)
    return Workflow(
        data["name"],
        [tasks[number] for number in data["members"]],
        [(tasks[up], tasks[down]) for up, down in data["edges"]],
        doc=data["doc"],
        source=None if data["source"] is None else SourceLine(*data["source"]),
        is_subset=data["is_subset"],
    )


def tasks_to_data(tasks: Iterable[Task]) -> dict[str, Any]:
    """Return tasks as JSON data; they need not form a workflow.

    :raises InvalidTask: for a value that JSON cannot represent, naming the task and the field.
    """
    writer = _Writer()
    return TASK.written({"members": [writer.number(task) for task in tasks], **writer.written()})


def tasks_of_data(data: Any, where: str = _HERE) -> list[Task]:
    """Return the tasks that :func:`tasks_to_data` has written.

    :param where: source of the data, such as a file name.
    :raises UnreadableRecord: when the data are of another version, or incomplete.
    """
    tasks = _read_tasks(data, where)
    with TASK.reading(where):
        return [tasks[number] for number in data["members"]]


def slurm_to_data(settings: SlurmSettings) -> dict[str, Any]:
    """Return Slurm settings as JSON."""
    data = _Writer()._write("settings", settings)
    return dict(data)


def slurm_of_data(data: Any) -> SlurmSettings:
    """Return the Slurm settings that :func:`slurm_to_data` has written.

    :raises LookupError: when a key is missing.
    """
    settings: SlurmSettings = value_of_data(data)
    return settings


def value_to_data(where: str, value: Any) -> Any:
    """Return a value that is given to a workflow as JSON data.

    :param where: name of the value in the message.
    :raises InvalidTask: for a value that JSON cannot represent.
    """
    return _Writer()._write(where, value)


def value_of_data(data: Any) -> Any:
    """Return the value that :func:`value_to_data` has written."""
    return _read(data, _References([], []))


def error_to_data(error: SewerError) -> dict[str, Any]:
    """Return an error as JSON data: its key in this package, its message, its line."""
    where = None if error.where is None else list(error.where)
    return {"error": key_of(type(error)), "message": str(error), "where": where}


def error_of_data(data: Mapping[str, Any]) -> SewerError:
    """Return the error that :func:`error_to_data` has written."""
    error = KEYS[data["error"]](data["message"])
    error.where = None if data["where"] is None else SourceLine(*data["where"])
    return error


class _Writer:
    """Writer of tasks and of the tasks they refer to.

    References are numbers, also those between mapped tasks and their tasks.
    """

    def __init__(self) -> None:
        self._numbers: dict[Task, int] = {}
        self._tasks: list[Task] = []
        self._identities: dict[object, int] = {}
        self._mapped_numbers: dict[MappedTask, int] = {}
        self._mapped: list[dict[str, Any]] = []

    def number(self, task: Task) -> int:
        """Return the number of a task, and add it to the written tasks."""
        if task not in self._numbers:
            self._numbers[task] = len(self._tasks)
            self._tasks.append(task)
        return self._numbers[task]

    def written(self) -> dict[str, Any]:
        """Write all tasks with a number; the tasks they refer to are added on the way."""
        tasks = [self._task(task) for task in self._tasks]  # the list grows meanwhile
        secrets = {value: name for task in self._tasks for value, name in task.secrets.items()}
        return {"tasks": tasks, "mapped": self._mapped, **({"secrets": secrets} if secrets else {})}

    def _mapped_number(self, mapped: MappedTask) -> int:
        if mapped not in self._mapped_numbers:
            self._mapped_numbers[mapped] = len(self._mapped)
            write = self._write if mapped.template.function is not None else self._argument
            self._mapped.append(
                {
                    "name": mapped.name,
                    "template": self.number(mapped.template),
                    "values": {key: write(f"map: {key}", values) for key, values in mapped.values.items()},
                    "each_with_each": mapped.each_with_each,
                    "tasks": [self.number(task) for task in mapped],
                    "source": list(mapped.source),
                }
            )
        return self._mapped_numbers[mapped]

    def _task(self, task: Task) -> dict[str, Any]:
        if type(task) is not Task:
            raise InvalidTask(
                f"task {task.name!r} must be a Task to be read by another interpreter, got a {type(task).__name__}",
                task.source,
            )
        data: dict[str, Any] = {}
        for field, attribute in _TASK_ATTRIBUTES.items():
            value = getattr(task, attribute)
            try:
                if field == "identity":
                    data[field] = self._identities.setdefault(value, len(self._identities))
                elif field == "parameters_and_flags":
                    data[field] = {key: self._argument(f"{field}[{key!r}]", item) for key, item in value.items()}
                else:
                    data[field] = self._argument(field, value) if field == "args" else self._write(field, value)
            except RecursionError:
                message = f"task {task.name!r}: {field} contains itself, or is nested too deeply to be written as JSON"
                raise InvalidTask(message, task.source) from None
            except InvalidTask as error:
                raise InvalidTask(f"task {task.name!r}: {error}", task.source) from None
        return data

    def _argument(self, where: str, value: Any) -> Any:
        """Write a value of a command line; a value that JSON cannot represent is written as its text."""
        if isinstance(value, (list, tuple)):
            return [self._argument(f"{where}[{i}]", item) for i, item in enumerate(value)]
        if isinstance(value, Ignored):
            return {_KIND: _KEY_OF[Ignored], "value": self._argument(where, value.value)}
        if value is None or type(value) is bool or type(value) in _KEY_OF:
            return self._write(where, value)
        if isinstance(value, (Mapping, os.PathLike)):
            return self._write(where, value)
        for base in (str, int, float):  # a subclass is written as the plain value, unless its text differs
            if isinstance(value, base) and str(value) == str(base(value)):
                return base(value)
        return str(value)

    def _write(self, where: str, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, str, int, float):
            return value
        if isinstance(value, Task):
            return {_KIND: "task", _OF: self.number(value)}
        if isinstance(value, MappedTask):
            return {_KIND: "mapped_task", _OF: self._mapped_number(value)}
        if (key := _KEY_OF.get(kind)) is not None:
            parts = {name: getattr(value, attribute) for name, attribute in _KINDS[key].attributes.items()}
            return {_KIND: key, **self._items(where, parts)}
        if isinstance(value, timedelta):
            return {_KIND: "timedelta", _OF: [value.days, value.seconds, value.microseconds]}
        if isinstance(value, os.PathLike) and not isinstance(value, PathMarker):
            path = os.fsdecode(value)
            return {_KIND: "path", _OF: path} if isinstance(value, PurePath) else path
        if isinstance(value, Mapping):
            return self._mapping(where, value)
        if isinstance(value, (list, tuple)):
            items = [self._write(f"{where}[{i}]", item) for i, item in enumerate(value)]
            return items if isinstance(value, list) else {_KIND: "tuple", _OF: items}
        for base in (str, int, float):  # a subclass is written as the plain value
            if isinstance(value, base):
                return base.__str__(value) if base is str else base(value)
        raise InvalidTask(
            f"{where} must be a JSON value to be passed out of the interpreter that has read the file, got a value of "
            f"type {kind.__name__}; give text, a number, a list or a mapping of these, or set it outside of the file"
        )

    def _mapping(self, where: str, value: Mapping[Any, Any]) -> Any:
        if all(type(key) is str for key in value) and _KIND not in value:
            return self._items(where, value)
        pairs = [[self._write(where, key), self._write(f"{where}[{key!r}]", item)] for key, item in value.items()]
        return {_KIND: "dict", _OF: pairs}

    def _items(self, where: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self._write(f"{where}[{key!r}]", item) for key, item in value.items()}


def _read_tasks(data: Any, where: str) -> list[Task]:
    """Create all tasks first, because they refer to each other, and then set their fields.

    :raises UnreadableRecord: when the data are of another version, or incomplete.
    """
    data = TASK.read(where, data)
    with TASK.reading(where):
        tasks = [Task.__new__(Task) for _ in data["tasks"]]
        references = _References(tasks, [])
        references.mapped.extend([_read_mapped(each, references) for each in data["mapped"]])
        identities: dict[int, object] = {}
        for task, fields in zip(tasks, data["tasks"]):
            for field, attribute in _TASK_ATTRIBUTES.items():
                setattr(task, attribute, _read(fields[field], references))
            task.identity = identities.setdefault(fields["identity"], object())
            task.args = tuple(task.args)
            task.secrets = dict(data.get("secrets", {}))
        for task in tasks:  # results of other tasks among its parameters have their names by now
            task.note_arguments()
        return tasks


class _References(NamedTuple):
    """Targets of the numbered references."""

    tasks: List[Task]
    mapped: List[MappedTask]


def _read_mapped(data: Mapping[str, Any], references: _References) -> MappedTask:
    return MappedTask(
        data["name"],
        references.tasks[data["template"]],
        {key: _read(values, references) for key, values in data["values"].items()},
        each_with_each=data["each_with_each"],
        tasks=[references.tasks[number] for number in data["tasks"]],
        source=SourceLine(*data["source"]),
    )


def _read(value: Any, references: _References) -> Any:
    if isinstance(value, list):
        return [_read(item, references) for item in value]
    if not isinstance(value, dict):
        return value
    if _KIND not in value:
        return {key: _read(item, references) for key, item in value.items()}
    fields = {key: _read(item, references) for key, item in value.items() if key != _KIND}
    kind = value[_KIND]
    if kind in _KINDS:
        create, attributes = _KINDS[kind]
        return create(**{attribute: fields[key] for key, attribute in attributes.items()})
    of = fields[_OF]
    if kind == "task":
        return references.tasks[of]
    if kind == "mapped_task":
        return references.mapped[of]
    return _CREATE[kind](of)


_CREATE: Mapping[str, Callable[[Any], Any]] = {
    "dict": dict,
    "tuple": tuple,
    "path": Path,
    "timedelta": lambda parts: timedelta(*parts),
}
