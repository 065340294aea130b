"""What the tags in a file with stages say: paths, ignored values, results of other stages, durations."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import yaml

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, unknown_name
from airflow_provider_sewer.core.paths import Dependency, External, PathMarker, Product
from airflow_provider_sewer.core.values import Ignored
from airflow_provider_sewer.loaders.stages.layout import LOOPS, refuse_unknown

if TYPE_CHECKING:
    from airflow_provider_sewer.core.mapping import MappedTask
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.loaders.stages.yaml_file import Entry, YamlFile

#: The tags of paths, and what each makes.
PATHS: dict[str, type[PathMarker]] = {"!product": Product, "!dependency": Dependency, "!external": External}

RESULT = "!result"
_IGNORED = "!ignored"
_TIMEDELTA = "!timedelta"
_TAGS = (*PATHS, _IGNORED, RESULT, _TIMEDELTA)

#: What a stage is called with, and so all that can be marked in it.
_ARGUMENTS = ("parameters_and_flags", "args", "kwargs", *LOOPS)

#: The fields in which a tag can stand.
_FIELDS_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(PATHS, (*_ARGUMENTS, "products", "dependencies")),
    _IGNORED: _ARGUMENTS,
    RESULT: _ARGUMENTS,
    _TIMEDELTA: ("operator_kwargs",),
}

_UNITS = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds")


class Tags:
    """What is meant where a tag stands.

    :param file: the file.
    :param stages: its stages.
    :param made: the tasks of those that come before, as far as they are made.
    """

    def __init__(self, file: YamlFile, stages: Mapping[str, Entry], made: Mapping[str, Task | MappedTask]) -> None:
        self._file = file
        self._stages = stages
        self._made = made

    def value(self, node: yaml.Node, field: str) -> Any:
        """Return what a node says, its tags understood.

        :param field: the field that it stands in.
        :raises SewerError: for what cannot be; with line and column.
        """
        return self._file.value(node, lambda tagged: self._meant(tagged, field))

    def result_at(self, node: yaml.Node) -> tuple[str, list[str | int]]:
        """Return whose result is meant by a node, and which part of it.

        :raises SewerError: when there is no such stage.
        """
        if isinstance(node, yaml.ScalarNode):
            name, keys = self._split(node.value)
            self._want_stage(name, node)
            return name, keys
        options = self._options(node, ("stage", "keys", "ignored"))
        if "stage" not in options:
            raise self._file.wrong(node, f"{RESULT}: the stage is missing; write {RESULT} {{stage: …}}", InvalidTask)
        name = self._file.text(options["stage"].value, "stage")
        self._want_stage(name, options["stage"].value)
        return name, list(self._keys(options["keys"].value)) if "keys" in options else []

    def _meant(self, node: yaml.Node, field: str) -> Any:
        if node.tag not in _TAGS:
            raise self._file.wrong(node, unknown_name("tag", node.tag, _TAGS))
        if field not in _FIELDS_OF[node.tag]:
            said = f"{node.tag} cannot stand in {field}, but in {' and '.join(_FIELDS_OF[node.tag])}"
            raise self._file.wrong(node, said, InvalidTask)
        if node.tag == _IGNORED:
            return Ignored(self._file.untagged(node, lambda tagged: self._meant(tagged, field)))
        if node.tag == _TIMEDELTA:
            return self._duration(node)
        meant = self._path(node) if node.tag in PATHS else self._result(node)
        return Ignored(meant) if self._is_ignored(node) else meant

    def _path(self, node: yaml.Node) -> PathMarker:
        kind = PATHS[node.tag]
        options: Mapping[str, Entry] = {}
        try:
            if isinstance(node, yaml.ScalarNode):
                return kind(node.value)
            options = self._options(node, (*inspect.signature(kind).parameters, "ignored"))
            if "path" not in options:
                raise InvalidTask(f"{node.tag}: the path is missing; write {node.tag} {{path: …}}")
            given = {name: self.value(entry.value, node.tag) for name, entry in options.items() if name != "ignored"}
            return kind(**given)
        except InvalidTask as error:
            if error.where:
                raise
            place = next((options[option].value for option in error.at if option in options), node)
            raise self._file.wrong(place, str(error), InvalidTask) from None

    def _result(self, node: yaml.Node) -> Any:
        """Return the part of a result that is meant; of a stage that was mapped, the results are a list."""
        name, keys = self.result_at(node)
        made = self._made[name]
        part: Any = made.result
        for place, key in enumerate(keys):
            if isinstance(part, list) and (not isinstance(key, int) or not -len(part) <= key < len(part)):
                said = f"{RESULT}: stage {name!r} is mapped, and leaves a list of {len(part)} results; {key!r} is none"
                raise self._file.wrong(self._key_at(node, place), said, InvalidTask)
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
            said = f"{RESULT}: keys are a list of keys and positions, not {keys!r:.200}"
            raise self._file.wrong(node, said, InvalidTask)
        for key, place in zip(keys, node.value, strict=True):
            if type(key) not in (str, int):
                said = f"{RESULT}: a part of a result is named by a key or a position, not {key!r:.200}"
                raise self._file.wrong(place, said, InvalidTask)
        return keys

    def _want_stage(self, name: str, node: yaml.Node) -> None:
        if name not in self._stages:
            raise self._file.wrong(node, f"{RESULT}: {unknown_name('stage', name, self._stages)}", InvalidWorkflow)

    def _split(self, text: str) -> tuple[str, list[str | int]]:
        """Take ``stage.key.0`` apart; the name of a stage may hold dots itself, and the longest one counts."""
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
            said = f"{node.tag}: ignored: true or false is needed, not {ignored!r:.200}"
            raise self._file.wrong(options["ignored"].value, said, InvalidTask)
        return ignored

    def _duration(self, node: yaml.Node) -> timedelta:
        total = timedelta()
        for unit, entry in self._options(node, _UNITS).items():
            amount = self.value(entry.value, node.tag)
            try:
                total += timedelta(**{unit: _number(amount)})
            except (TypeError, OverflowError):
                said = f"{_TIMEDELTA}: {unit}: a number is needed, of at most 999,999,999 days, not {amount!r:.200}"
                raise self._file.wrong(entry.value, said, InvalidTask) from None
        return total

    def _options(self, node: yaml.Node, known: Sequence[str]) -> Mapping[str, Entry]:
        options = self._file.entries(node, node.tag)
        refuse_unknown(self._file, options, tuple(known), f"option of {node.tag}")
        return options


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return value
