"""Tags in a file with stages: paths, ignored values, results of other stages, durations."""

from __future__ import annotations

import inspect
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import yaml

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.paths import Dependency, External, PathMarker, Product
from airflow_provider_sewer.core.placeholders import Ignored
from airflow_provider_sewer.loaders.stages.layout import LOOPS, reject_unknown_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.loaders.stages.yaml_file import Entry, YamlFile

#: Classes of path tags.
PATHS: dict[str, type[PathMarker]] = {"!product": Product, "!dependency": Dependency, "!external": External}

RESULT = "!result"
_IGNORED = "!ignored"
_TIMEDELTA = "!timedelta"
_TAGS = (*PATHS, _IGNORED, RESULT, _TIMEDELTA)

#: Fields with arguments of a stage.
_ARGUMENTS = ("parameters_and_flags", "args", "kwargs", *LOOPS)

#: Fields in which each tag is allowed.
_FIELDS_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(PATHS, (*_ARGUMENTS, "products", "dependencies", "stdin", "stdout")),
    _IGNORED: _ARGUMENTS,
    RESULT: _ARGUMENTS,
    _TIMEDELTA: ("operator_kwargs",),
}

_UNITS = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds")


class Tags:
    """Converter of tagged nodes.

    :param file: workflow file.
    :param stages: its stages.
    :param tasks: tasks of the stages that are converted so far.
    """

    def __init__(self, file: YamlFile, stages: Mapping[str, Entry], tasks: Mapping[str, Task | MappedTask]) -> None:
        self._file = file
        self._stages = stages
        self._tasks = tasks

    def value(self, node: yaml.Node, field: str) -> Any:
        """Return the value of a node with its tags converted.

        :param field: field that contains the node.
        :raises SewerError: when a tag or its value is invalid; with line and column.
        """
        return self._file.value(node, lambda tagged: self._converted(tagged, field))

    def result_at(self, node: yaml.Node) -> tuple[str, list[str | int]]:
        """Return the stage of a ``!result`` node, and the keys into its result.

        :raises SewerError: when the stage is unknown.
        """
        if isinstance(node, yaml.ScalarNode):
            name, keys = self._split(node.value)
            self._check_stage(name, node)
            return name, keys
        options = self._options(node, ("stage", "keys", "ignored"))
        if "stage" not in options:
            raise self._file.error_at(node, f"{RESULT}: the stage is missing; write {RESULT} {{stage: …}}", InvalidTask)
        name = self._file.text(options["stage"].value, "stage")
        self._check_stage(name, options["stage"].value)
        return name, list(self._keys(options["keys"].value)) if "keys" in options else []

    def _converted(self, node: yaml.Node, field: str) -> Any:
        if node.tag not in _TAGS:
            raise self._file.error_at(node, unknown_name("tag", node.tag, _TAGS))
        if field not in _FIELDS_OF[node.tag]:
            message = f"{node.tag} is not allowed in {field}, only in {' and '.join(_FIELDS_OF[node.tag])}"
            raise self._file.error_at(node, message, InvalidTask)
        if node.tag == _IGNORED:
            return Ignored(self._file.untagged(node, lambda tagged: self._converted(tagged, field)))
        if node.tag == _TIMEDELTA:
            return self._duration(node)
        value = self._path(node) if node.tag in PATHS else self._result(node)
        return Ignored(value) if self._is_ignored(node) else value

    def _path(self, node: yaml.Node) -> PathMarker:
        kind = PATHS[node.tag]
        options: Mapping[str, Entry] = {}
        try:
            if isinstance(node, yaml.ScalarNode):
                return kind(node.value)
            options = self._options(node, (*inspect.signature(kind).parameters, "ignored"))
            if "path" not in options:
                raise InvalidTask(f"{node.tag}: the path is missing; write {node.tag} {{path: …}}")
            values = {name: self.value(entry.value, node.tag) for name, entry in options.items() if name != "ignored"}
            return kind(**values)
        except InvalidTask as error:
            if error.where:
                raise
            place = next((options[option].value for option in error.at if option in options), node)
            raise self._file.error_at(place, str(error), InvalidTask) from None

    def _result(self, node: yaml.Node) -> Any:
        """Return the result, or the part of it, that a node refers to; a mapped stage has a list of results."""
        name, keys = self.result_at(node)
        part: Any = self._tasks[name].result
        for place, key in enumerate(keys):
            if isinstance(part, list) and (not isinstance(key, int) or not -len(part) <= key < len(part)):
                message = (
                    f"{RESULT}: stage {name!r} is mapped and has a list of {len(part)} results; {key!r} is not in it"
                )
                raise self._file.error_at(self._key_at(node, place), message, InvalidTask)
            part = part[key]
        return part

    def _key_at(self, node: yaml.Node, place: int) -> yaml.Node:
        if isinstance(node, yaml.ScalarNode):
            return node
        key: yaml.Node = self._file.entries(node, RESULT)["keys"].value.value[place]
        return key

    def _keys(self, node: yaml.Node) -> Sequence[str | int]:
        keys = self.value(node, RESULT)
        if not isinstance(keys, list):
            message = f"{RESULT}: keys must be a list of keys and positions, got {keys!r:.200}"
            raise self._file.error_at(node, message, InvalidTask)
        for key, place in zip(keys, node.value, strict=True):
            if type(key) not in (str, int):
                message = f"{RESULT}: each key must be a string or an integer, got {key!r:.200}"
                raise self._file.error_at(place, message, InvalidTask)
        return keys

    def _check_stage(self, name: str, node: yaml.Node) -> None:
        if name not in self._stages:
            raise self._file.error_at(node, f"{RESULT}: {unknown_name('stage', name, self._stages)}", InvalidWorkflow)

    def _split(self, text: str) -> tuple[str, list[str | int]]:
        """Split ``stage.key.0``; stage names may contain dots, and the longest match is used."""
        parts = text.split(".")
        for length in range(len(parts), 0, -1):
            if (name := ".".join(parts[:length])) in self._stages:
                return name, [int(part) if part.isdecimal() else part for part in parts[length:]]
        return parts[0], []

    def _is_ignored(self, node: yaml.Node) -> bool:
        options = self._file.entries(node, node.tag) if isinstance(node, yaml.MappingNode) else {}
        if "ignored" not in options:
            return False
        ignored = self.value(options["ignored"].value, node.tag)
        if not isinstance(ignored, bool):
            message = f"{node.tag}: ignored must be true or false, got {ignored!r:.200}"
            raise self._file.error_at(options["ignored"].value, message, InvalidTask)
        return ignored

    def _duration(self, node: yaml.Node) -> timedelta:
        total = timedelta()
        for unit, entry in self._options(node, _UNITS).items():
            amount = self.value(entry.value, node.tag)
            try:
                total += timedelta(**{unit: _number(amount)})
            except (TypeError, OverflowError):
                message = f"{_TIMEDELTA}: {unit} must be a number, at most 999,999,999 days, got {amount!r:.200}"
                raise self._file.error_at(entry.value, message, InvalidTask) from None
        return total

    def _options(self, node: yaml.Node, known: Sequence[str]) -> Mapping[str, Entry]:
        options = self._file.entries(node, node.tag)
        reject_unknown_keys(self._file, options, tuple(known), f"option of {node.tag}")
        return options


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return value
