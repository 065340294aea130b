"""Loader of workflows from stages in YAML.

The short form is that of python-dag-pipeline: ``Stage: [upstream stages]``, and a module with a function of that name
for each stage. In place of the list there can be a mapping with any field of a task, and with ``map`` or
``map_product``. :mod:`airflow_provider_sewer.loaders.stages.layout` describes the other forms.
"""

from __future__ import annotations

import os
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import yaml

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.mapping import MappedTask, checked_values, mapped_task, number_of_tasks
from airflow_provider_sewer.core.recording import recording
from airflow_provider_sewer.core.size_limits import MAX_ITEMS
from airflow_provider_sewer.core.source import SourceLine, written_at
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.loaders.stages.error_locations import items, place_in_fields, place_of_path, place_of_stage
from airflow_provider_sewer.loaders.stages.functions_module import FunctionsModule
from airflow_provider_sewer.loaders.stages.layout import (
    LOOPS,
    STAGE_FIELDS,
    Layout,
    is_set,
    layouts,
    reject_unknown_keys,
)
from airflow_provider_sewer.loaders.stages.yaml_file import Entry, YamlFile, inner, is_null
from airflow_provider_sewer.loaders.stages.yaml_tags import RESULT, Tags
from airflow_provider_sewer.loaders.workflow_files import select_workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def load_stages(path: str | os.PathLike[str], workflow: str | None = None, jobs: str | None = None) -> Workflow:
    """Load a file with stages and return one of its workflows.

    :param workflow: its name; needed only if the file defines several and none is called ``workflow``.
    :param jobs: module that defines the functions of the stages, unless the file sets one.
    :raises SewerError: when the file, a stage or the workflow is invalid; with file, line and column.
    """
    file = YamlFile(os.path.abspath(path))
    found = layouts(file)
    return _loaded(file, found[select_workflow(workflow, list(found), file.path)], jobs)


def load_stage_tasks(path: str | os.PathLike[str], jobs: str | None = None) -> list[Task]:
    """Load a file with stages and return the tasks of all its workflows, without duplicates.

    :param jobs: as for :func:`load_stages`.
    :raises SewerError: as :func:`load_stages` does.
    """
    file = YamlFile(os.path.abspath(path))
    found: dict[str, list[Task]] = {}
    for layout in layouts(file).values():
        for name, task in _loaded(file, layout, jobs).tasks.items():
            namesakes = found.setdefault(name, [])
            if not any(map(task.is_same, namesakes)):
                namesakes.append(task)
    return [task for namesakes in found.values() for task in namesakes]


def _loaded(file: YamlFile, layout: Layout, jobs: str | None) -> Workflow:
    with recording():  # these tasks must not be recorded for a Python file that loads this one
        return _Stages(file, layout, _jobs(file, layout, jobs)).workflow()


def _jobs(file: YamlFile, layout: Layout, default: str | None) -> FunctionsModule | None:
    folder = os.path.dirname(file.path)
    try:
        if layout.functions_module is not None:
            return FunctionsModule(file.text(layout.functions_module, "jobs"), folder)
        return FunctionsModule(default, folder) if default is not None else None
    except InvalidWorkflow as error:
        where = file.at(layout.functions_module) if layout.functions_module is not None else SourceLine(file.path, 0)
        raise InvalidWorkflow(str(error), where) from None


class _Stages:
    """Converter of the stages of a workflow to tasks.

    :param file: workflow file.
    :param layout: parsed layout of the workflow.
    :param jobs: module that defines the functions of stages without a module.
    """

    def __init__(self, file: YamlFile, layout: Layout, jobs: FunctionsModule | None) -> None:
        self._file = file
        self._layout = layout
        self._stages = layout.stages
        self._jobs = jobs
        self._own = {name: self._entries(name) for name in layout.stages}
        self._tasks_of_stages: dict[str, Task | MappedTask] = {}
        self._task_count = 0
        self._tags = Tags(file, layout.stages, self._tasks_of_stages)

    def workflow(self) -> Workflow:
        """Return the workflow, its tasks in the order of the file."""
        for name in self._ordered():
            self._tasks_of_stages[name] = self._task(name)
        tasks = {task: name for name in self._stages for task in self._tasks_of(name)}
        try:
            return Workflow(self._layout.name, tasks, doc=self._layout.doc, source=self._layout.source)
        except InvalidWorkflow as error:
            stages = {task.name: name for task, name in tasks.items()}
            node = self._place_of(stages, *error.at) if error.at else None
            raise error if node is None else self._file.error_at(node, error.message, InvalidWorkflow) from None

    def _tasks_of(self, name: str) -> list[Task]:
        task = self._tasks_of_stages[name]
        return list(task) if isinstance(task, MappedTask) else [task]

    def _entries(self, name: str) -> dict[str, Entry]:
        """Return the fields of a stage; the short form has only ``depends_on``."""
        key, value = self._stages[name]
        if not isinstance(value, yaml.MappingNode):
            return {} if is_null(value) else {"depends_on": Entry(key, value)}
        entries = self._file.entries(value, f"stage {name!r}")
        reject_unknown_keys(self._file, entries, STAGE_FIELDS, "field of a stage")
        return entries

    def _ordered(self) -> Iterator[str]:
        """Return the names of the stages; the stages whose tasks a stage refers to come first."""
        required = {name: list(self._required_by(name)) for name in self._stages}
        try:
            yield from TopologicalSorter(required).static_order()
        except CycleError as error:
            up, down, *_ = error.args[1]
            cycle = " → ".join(map(repr, [down, *reversed(error.args[1][1:])]))
            message = f"cyclic dependency of stages: {cycle}; remove one of these dependencies"
            node = place_of_stage(self._own[down], self._stage_at, up) or self._stages[down].key
            raise self._file.error_at(node, message, InvalidWorkflow) from None

    def _required_by(self, name: str) -> Iterator[str]:
        """Return the stages whose results a stage uses, and mapped stages that it depends on."""
        for entry in self._own[name].values():
            yield from (self._tags.result_at(node)[0] for node in inner(entry.value) if node.tag == RESULT)
        for item in self._upstream(name):
            stage = self._stage_at(item)
            if stage is not None and self._loop(stage):
                yield stage

    def _task(self, name: str) -> Task | MappedTask:
        own = self._own[name]
        fields = self._fields(name, own)
        loop = self._loop(name)
        values = self._values(own[loop], loop) if loop else {}
        key = self._stages[name].key
        with written_at(self._file.at(key)):
            try:
                task = Task(name, **fields)
                if not loop:
                    return task
                lists, each_with_each = checked_values(values, name), loop == "map_product"
                self._count(name, number_of_tasks(lists, each_with_each=each_with_each))
                return mapped_task(task, lists, each_with_each=each_with_each)
            except InvalidTask as error:
                node = self._place_in(name, *error.at) if error.at else None
                raise self._file.error_at(node or key, error.message, InvalidTask) from None

    def _count(self, name: str, tasks: int) -> None:
        """Limit the number of mapped tasks: a few lines must not expand to more tasks than fit into memory."""
        self._task_count += tasks
        if self._task_count > MAX_ITEMS:
            message = (
                f"stages must be mapped to at most {MAX_ITEMS:,} tasks, got {self._task_count:,}; map over fewer values"
            )
            raise InvalidTask(f"task {name!r}: {message}")

    def _loop(self, name: str) -> str | None:
        """Return ``map`` or ``map_product``, or ``None`` if the stage is not mapped.

        :raises InvalidTask: when the stage has both.
        """
        loops = [field for field in self._own[name] if field in LOOPS]
        if len(loops) > 1:
            message = f"task {name!r}: {loops[0]!r} and {loops[1]!r} exclude each other; remove one of them"
            raise self._file.error_at(self._own[name][loops[1]].key, message, InvalidTask)
        return loops[0] if loops else None

    def _values(self, loop: Entry, field: str) -> dict[str, Any]:
        entries = self._file.entries(loop.value, field)
        return {key: self._tags.value(entry.value, field) for key, entry in entries.items()}

    def _fields(self, name: str, own: Mapping[str, Entry]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self._jobs and self._jobs.is_beside:
            fields["workdir"] = "."  # Python finds the module there, and python-dag-pipeline ran there
        for entries in (*self._layout.defaults, own):
            for field, entry in entries.items():
                if field not in ("depends_on", *LOOPS):
                    value, known = self._tags.value(entry.value, field), fields.get(field)
                    fields[field] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
        fields = {field: value for field, value in fields.items() if value is not None}  # null removes a field
        fields["depends_on"] = list(self._depends_on(name))
        if "module" not in fields:
            fields["function"] = self._function(name, own, fields)
        return fields

    def _depends_on(self, name: str) -> Iterator[str]:
        """Return the names of the tasks that a stage depends on."""
        for item in self._upstream(name):
            upstream = self._file.text(item, f"stage {name!r}: each item of depends_on")
            stage = self._stage_at(item)
            if stage is None:
                message = f"stage {name!r} depends on an {unknown_name('stage', upstream, self._stages)}"
                raise self._file.error_at(item, message, InvalidWorkflow)
            tasks = [task.name for task in self._tasks_of(stage)] if self._loop(stage) else [stage]
            if upstream not in (stage, *tasks):
                message = f"stage {name!r} depends on an {unknown_name('task', upstream, tasks)}"
                raise self._file.error_at(item, message, InvalidWorkflow)
            yield from tasks if upstream == stage else [upstream]

    def _upstream(self, name: str) -> list[yaml.Node]:
        """Return the nodes in ``depends_on`` of a stage."""
        own = self._own[name]
        return items(own["depends_on"].value) if is_set(own, "depends_on") else []

    def _stage_at(self, node: yaml.Node) -> str | None:
        """Return the stage that a result or an item of ``depends_on`` refers to, also by the name of a mapped task."""
        if node.tag == RESULT:
            return self._tags.result_at(node)[0]
        text = str(node.value)
        if text in self._stages or "[" not in text:
            return text if text in self._stages else None
        of_loop = [name for name in self._stages if text.startswith(f"{name}[") and self._loop(name)]
        return max(of_loop, key=len, default=None)

    def _function(self, name: str, own: Mapping[str, Entry], fields: Mapping[str, Any]) -> Any:
        """Return the function of a stage; default: the function of the jobs module with the name of the stage."""
        function = fields.get("function", name)
        if "function" in own and (not isinstance(function, str) or ":" in function or is_template(function)):
            return function
        node = own["function"].value if "function" in own else self._stages[name].key
        if self._jobs is None:
            raise self._file.error_at(
                node,
                f"stage {name!r} needs a jobs module, but none is set; set one with --jobs, with jobs=… in Python, or "
                "give the stage a module or a function 'package.module:function'",
                InvalidTask,
            )
        if not function.isidentifier():
            message = f"stage {name!r}: {function!r} is not a valid function name; set the field 'function'"
            raise self._file.error_at(node, message, InvalidTask)
        is_found_beside = fields.get("workdir") == "."
        if is_found_beside and (reason := self._jobs.missing_reason(function)):
            raise self._file.error_at(node, f"stage {name!r} has no function in {reason}", InvalidTask)
        return self._jobs.function(function)

    def _place_in(self, name: str, field: Any, *keys: Any) -> yaml.Node | None:
        """Return the node of a stage that an error of its task refers to."""
        if field in ("products", "dependencies") and keys and isinstance(keys[0], str):
            return place_of_path(self._file, self._own[name], field, keys[0])
        field = self._loop(name) if field == "map" else field
        return place_in_fields(self._file, (self._own[name], *reversed(self._layout.defaults)), (field, *keys))

    def _place_of(self, stages: Mapping[str, str], task: str, field: str, value: str) -> yaml.Node | None:
        """Return the node of a stage that conflicts with other stages.

        :param stages: names of stages by the names of their tasks.
        :param task: name of a task of the stage.
        :param field: ``depends_on``, ``products`` or ``dependencies``.
        :param value: a path, or the name of another task.
        """
        own = self._own[stages[task]]
        if field == "depends_on":
            return place_of_stage(own, self._stage_at, stages[value])
        node = place_of_path(self._file, own, field, value)
        mapped = self._tasks_of_stages[stages[task]]
        if node is not None or not isinstance(mapped, MappedTask):
            return node
        paths = [each.path for each in getattr(mapped[[each.name for each in mapped].index(task)], field)]
        patterns = [each.path for each in getattr(mapped.template, field)]
        return place_of_path(self._file, own, field, dict(zip(paths, patterns, strict=False)).get(value, value))
