"""Where in a file with stages it says what an error is about: the very key or value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from airflow_provider_sewer.core.errors import Key
from airflow_provider_sewer.loaders.stages.yaml_file import inner
from airflow_provider_sewer.loaders.stages.yaml_tags import PATHS, RESULT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_sewer.loaders.stages.yaml_file import Entry, YamlFile


def place_in_fields(file: YamlFile, said: Sequence[Mapping[str, Entry]], at: tuple[Any, ...]) -> yaml.Node | None:
    """Return the node to which a way through the fields of a stage leads, as far as it can be followed.

    :param said: the fields of the stage, then the defaults that hold for it, the nearest first.
    :param at: the way, as errors have it (see :class:`~airflow_provider_sewer.core.errors.SewerError`).
    """
    followed = [_followed(file, entries, at) for entries in said]
    _, node = max(followed, key=lambda each: each[0], default=(0, None))  # of those as far, the nearest
    return node


def place_of_path(file: YamlFile, fields: Mapping[str, Entry], field: str, path: str) -> yaml.Node | None:
    """Return the last node of a stage that says a path.

    :param fields: the fields of the stage.
    :param field: ``products`` or ``dependencies``, which it is said to be, wherever that is said.
    :param path: the path as it is written.
    """
    tags = ("!product",) if field == "products" else tuple(tag for tag in PATHS if tag != "!product")
    return max((node for text, node in _paths(file, fields, field, tags) if text == path), key=_place, default=None)


def place_of_stage(
    fields: Mapping[str, Entry], stage_of: Callable[[yaml.Node], str | None], stage: str
) -> yaml.Node | None:
    """Return the first node that has a stage wait for another one.

    :param fields: the fields of the stage that waits.
    :param stage_of: returns which stage is meant by an item of ``depends_on``, or by a result.
    :param stage: the name of the other one.
    """
    listed = items(fields["depends_on"].value) if "depends_on" in fields else []
    results = [node for entry in fields.values() for node in inner(entry.value) if node.tag == RESULT]
    return min((node for node in (*listed, *results) if stage_of(node) == stage), key=_place, default=None)


def items(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes of a list; a single node stands for a list of it."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]


def _followed(file: YamlFile, entries: Mapping[str, Entry], at: tuple[Any, ...]) -> tuple[int, yaml.Node | None]:
    """Return how far a way can be followed, and the node there."""
    node: yaml.Node | None = None
    for step, part in enumerate(at):
        name = part.key if isinstance(part, Key) else part
        if node is not None and isinstance(node, yaml.SequenceNode):
            if not isinstance(name, int) or name >= len(node.value):
                return step, node
            node = node.value[name]
            continue
        if node is not None:
            entries = file.entries(node, "this") if isinstance(node, yaml.MappingNode) else {}
        if name not in entries:
            return step, node
        node = entries[name].key if isinstance(part, Key) else entries[name].value
    return len(at), node


def _paths(
    file: YamlFile, fields: Mapping[str, Entry], field: str, tags: Iterable[str]
) -> Iterator[tuple[str, yaml.Node]]:
    for node in items(fields[field].value) if field in fields else ():
        if isinstance(node, yaml.ScalarNode) and node.tag not in tags:
            yield node.value, node
    for entry in fields.values():
        for node in inner(entry.value):
            if node.tag not in tags:
                continue
            path = file.entries(node, node.tag)["path"].value if isinstance(node, yaml.MappingNode) else node
            yield path.value, path


def _place(node: yaml.Node) -> int:
    return int(node.start_mark.index)
