"""Stages in YAML → workflows.

The short form is that of python-dag-pipeline: ``Stage: [stages before it]``, and a module with a function of that name
for each stage. In place of the list there can be a mapping with any field of a task. A file whose key ``stages`` holds
a mapping has the long form: the stages stand in there, and beside them what holds for all. So no stage of the short
form is ever taken for something else.
"""

from __future__ import annotations

import inspect
import os
import re
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, WorkflowFileError, unknown_name
from airflow_provider_sewer.core.paths import Dependency, External, PathMarker, Product
from airflow_provider_sewer.core.recording import recording
from airflow_provider_sewer.core.source import SourceLine, written_at
from airflow_provider_sewer.core.task import FIELDS, Task
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.core.values import Ignored, Result
from airflow_provider_sewer.core.workflow import DEFAULT_WORKFLOW, Workflow
from airflow_provider_sewer.readers.jobs import Jobs
from airflow_provider_sewer.readers.yaml_file import Entry, YamlFile, inner, is_null

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What can stand at the top of the long form.
TOP_FIELDS = ("name", "doc", "jobs", "defaults", "stages")

#: What a stage can say: all that a task can, but for its name, which is its key.
STAGE_FIELDS = tuple(field for field in FIELDS if field != "name")

#: What can be said for all stages: where, when and how they run, not what.
DEFAULT_FIELDS = (
    "use_underscores", "python", "env", "inherit_env", "workdir", "run_when", "compare", "stale_with", "resources",
    "operator_kwargs", "run_on", "slurm",
)  # fmt: skip

#: The tags of paths, and what each makes.
_PATHS: dict[str, type[PathMarker]] = {"!product": Product, "!dependency": Dependency, "!external": External}
_TAGS = (*_PATHS, "!ignored", "!result")


def load_stages(path: str | os.PathLike[str], workflow: str | None = None, jobs: str | None = None) -> Workflow:
    """Load a file with stages and return its workflow.

    :param workflow: its name; a file has one workflow only.
    :param jobs: the module that has the functions of the stages, if the file names none.
    :raises SewerError: when the file, a stage or the workflow is wrong; with file, line and column.
    """
    file = YamlFile(os.path.abspath(path))
    layout = _layout(file)
    source = SourceLine(file.path, 0)
    if workflow not in (None, layout.name):
        raise WorkflowFileError(unknown_name("workflow", workflow, [layout.name]), source)
    with recording():  # they are no tasks of a Python file that loads this one
        tasks = _Stages(file, layout, _jobs(file, layout, jobs)).tasks()
    return Workflow(layout.name, tasks, doc=layout.doc, source=source)


class _Layout(NamedTuple):
    """What stands where in a file.

    :param stages: the stages by name.
    :param name: the workflow's name.
    :param doc: what it is for.
    :param jobs: where the jobs module is named, if it is.
    :param defaults: what holds for all stages.
    """

    stages: Mapping[str, Entry]
    name: str = DEFAULT_WORKFLOW
    doc: str = ""
    jobs: yaml.Node | None = None
    defaults: Mapping[str, Entry] = {}


def _layout(file: YamlFile) -> _Layout:
    top = file.entries(file.root, "the file")
    if "stages" not in top or not isinstance(top["stages"].value, yaml.MappingNode):
        return _with_stages(_Layout(top), file)
    _refuse_unknown(file, top, TOP_FIELDS, "field of the file")
    texts = {field: file.text(top[field].value, field) for field in ("name", "doc") if field in top}
    defaults = file.entries(top["defaults"].value, "defaults") if "defaults" in top else {}
    _refuse_unknown(file, defaults, DEFAULT_FIELDS, "field in defaults")
    jobs = top["jobs"].value if "jobs" in top else None
    return _with_stages(
        _Layout(file.entries(top["stages"].value, "stages"), jobs=jobs, defaults=defaults, **texts), file
    )


def _with_stages(layout: _Layout, file: YamlFile) -> _Layout:
    if not layout.stages:
        raise file.wrong(file.root, "the file has no stages; write at least one, such as 'Lint: []'")
    return layout


def _jobs(file: YamlFile, layout: _Layout, given: str | None) -> Jobs | None:
    folder = os.path.dirname(file.path)
    try:
        if layout.jobs is not None:
            return Jobs(file.text(layout.jobs, "jobs"), folder)
        return Jobs(given, folder) if given is not None else None
    except InvalidWorkflow as error:
        where = file.at(layout.jobs) if layout.jobs is not None else SourceLine(file.path, 0)
        raise InvalidWorkflow(str(error), where) from None


def _refuse_unknown(file: YamlFile, entries: Mapping[str, Entry], known: tuple[str, ...], what: str) -> None:
    for name, entry in entries.items():
        if name not in known:
            raise file.wrong(entry.key, unknown_name(what, name, known), InvalidTask)


class _Stages:
    """The stages of a file, on their way to tasks.

    :param file: the file.
    :param layout: what stands where in it.
    :param jobs: the module that has the functions of stages that name none.
    """

    def __init__(self, file: YamlFile, layout: _Layout, jobs: Jobs | None) -> None:
        self._file = file
        self._stages = layout.stages
        self._defaults = layout.defaults
        self._jobs = jobs
        self._made: dict[str, Task] = {}

    def tasks(self) -> list[Task]:
        """Return a task for each stage, in the order of the file."""
        for name in self._ordered_by_results():
            self._made[name] = self._task(name)
        return [self._made[name] for name in self._stages]

    def _ordered_by_results(self) -> Iterator[str]:
        """Return the names of the stages, each after those whose results it takes."""
        taken = {
            name: [self._result_at(node)[0] for node in inner(stage.value) if node.tag == "!result"]
            for name, stage in self._stages.items()
        }
        try:
            yield from TopologicalSorter(taken).static_order()
        except CycleError as error:
            circle = " → ".join(map(repr, reversed(error.args[1])))
            said = f"these stages take each other's results in a circle: {circle}; take one of them out"
            raise self._file.wrong(self._stages[error.args[1][0]].key, said, InvalidWorkflow) from None

    def _task(self, name: str) -> Task:
        stage = self._stages[name]
        own = self._entries(name)
        fields = self._fields(name, own)
        place = self._file.at(stage.key)
        with written_at(place):
            try:
                return Task(name, **fields)
            except InvalidTask as error:
                said = str(error).removeprefix(f"{place}: ")
                node = self._about(said.removeprefix(f"task {name!r}: "), {**self._defaults, **own}) or stage.key
                raise self._file.wrong(node, said, InvalidTask) from None

    def _entries(self, name: str) -> dict[str, Entry]:
        """Return the fields of a stage; in the short form, it has only what it depends on."""
        key, value = self._stages[name]
        if not isinstance(value, yaml.MappingNode):
            return {} if is_null(value) else {"depends_on": Entry(key, value)}
        entries = self._file.entries(value, f"stage {name!r}")
        _refuse_unknown(self._file, entries, STAGE_FIELDS, "field of a stage")
        return entries

    def _fields(self, name: str, own: Mapping[str, Entry]) -> dict[str, Any]:
        fields = {field: self._file.value(entry.value, self._tagged) for field, entry in self._defaults.items()}
        if self._jobs and self._jobs.is_beside:
            fields.setdefault("workdir", ".")  # where Python finds it, and where python-dag-pipeline ran
        for field, entry in own.items():
            if field == "depends_on":
                fields[field] = list(self._names(name, entry.value))
                continue
            value = self._file.value(entry.value, self._tagged)
            default = fields.get(field)
            fields[field] = {**default, **value} if isinstance(default, dict) and isinstance(value, dict) else value
        if fields.get("module") is None:
            fields["function"] = self._function(name, own, fields)
        return fields

    def _names(self, stage: str, node: yaml.Node) -> Iterator[str]:
        """Return what a stage depends on."""
        if is_null(node):
            return
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            name = self._file.text(item, f"stage {stage!r}: the name of a stage it depends on")
            if name not in self._stages:
                said = f"stage {stage!r} depends on an {unknown_name('stage', name, self._stages)}"
                raise self._file.wrong(item, said, InvalidWorkflow)
            yield name

    def _function(self, name: str, own: Mapping[str, Entry], fields: Mapping[str, Any]) -> Any:
        """Return the function of a stage: by itself, the one of the jobs module that has the stage's name."""
        function = fields.get("function", name)
        if "function" in own and (not isinstance(function, str) or ":" in function or is_template(function)):
            return function
        node = own["function"].value if "function" in own else self._stages[name].key
        if self._jobs is None:
            raise self._file.wrong(
                node,
                f"stage {name!r} is to run a function of the jobs module, and none is named; name one with --jobs, "
                "with jobs=… in Python, or give the stage a module or a function 'package.module:function'",
                InvalidTask,
            )
        if not function.isidentifier():
            said = f"stage {name!r}: {function!r} cannot be the name of a function; name one with the field 'function'"
            raise self._file.wrong(node, said, InvalidTask)
        is_found_beside = fields.get("workdir") == "."
        if is_found_beside and (why := self._jobs.why_without(function)):
            raise self._file.wrong(node, f"stage {name!r} has no function in {why}", InvalidTask)
        return self._jobs.function(function)

    def _tagged(self, node: yaml.Node) -> Any:
        """Return what a node with one of our tags says."""
        try:
            if node.tag in _PATHS:
                return self._path(node)
            if node.tag == "!ignored":
                return Ignored(self._file.untagged(node, self._tagged))
            if node.tag == "!result":
                name, keys = self._result_at(node)
                return Result(self._made[name], keys)
        except InvalidTask as error:
            raise error if error.where else self._file.wrong(node, str(error), InvalidTask) from None
        raise self._file.wrong(node, unknown_name("tag", node.tag, _TAGS))

    def _path(self, node: yaml.Node) -> PathMarker:
        kind = _PATHS[node.tag]
        if isinstance(node, yaml.ScalarNode):
            return kind(node.value)
        options = self._file.entries(node, node.tag)
        _refuse_unknown(self._file, options, tuple(inspect.signature(kind).parameters), f"option of {node.tag}")
        if "path" not in options:
            raise InvalidTask(f"{node.tag}: the path is missing; write {node.tag} {{path: …}}")
        return kind(**{name: self._file.value(entry.value, self._tagged) for name, entry in options.items()})

    def _result_at(self, node: yaml.Node) -> tuple[str, tuple[str | int, ...]]:
        """Return whose result is meant somewhere, and which part of it."""
        if isinstance(node, yaml.ScalarNode):
            name, keys = self._split(node.value)
        else:
            options = self._file.entries(node, "!result")
            _refuse_unknown(self._file, options, ("stage", "keys"), "option of !result")
            name = self._file.text(options["stage"].value, "stage") if "stage" in options else ""
            keys = self._file.value(options["keys"].value, self._tagged) if "keys" in options else []
        if name not in self._stages:
            raise self._file.wrong(node, f"!result: {unknown_name('stage', name, self._stages)}", InvalidWorkflow)
        if not isinstance(keys, list) or not all(type(key) in (str, int) for key in keys):
            raise self._file.wrong(node, f"!result: keys are a list of keys and positions, not {keys!r}", InvalidTask)
        return name, tuple(keys)

    def _split(self, text: str) -> tuple[str, list[str | int]]:
        """Take ``stage.key.0`` apart; the name of a stage may hold dots itself, and the longest one counts."""
        parts = text.split(".")
        for length in range(len(parts), 0, -1):
            if (name := ".".join(parts[:length])) in self._stages:
                return name, [int(part) if part.isdecimal() else part for part in parts[length:]]
        return parts[0], []

    def _about(self, said: str, entries: Mapping[str, Entry]) -> yaml.Node | None:
        """Return the innermost node that a message is about: messages begin with the name of a field."""
        words = re.match(r"\w+", said)
        field = {"parameter": "parameters_and_flags"}.get(words[0], words[0]) if words else ""
        if field not in entries:
            return None
        node = entries[field].value
        if isinstance(node, yaml.MappingNode):
            for name, entry in self._file.entries(node, field).items():
                if repr(name) in said or f": {name}: " in said:
                    return entry.value
        return node
