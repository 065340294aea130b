"""Positions of errors in a file with stages: the key or value that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from airflow_provider_sewer.core.errors import Key
from airflow_provider_sewer.loaders.stages.yaml_file import inner
from airflow_provider_sewer.loaders.stages.yaml_tags import PATHS, RESULT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_sewer.loaders.stages.yaml_file import Entry, YamlFile

#: The field of a stream whose path counts among those of another field.
_STREAM_OF = {"products": "stdout", "dependencies": "stdin"}


def place_in_fields(file: YamlFile, sources: Sequence[Mapping[str, Entry]], at: tuple[Any, ...]) -> yaml.Node | None:
    """Return the deepest node on a path through the fields of a stage.

    :param sources: fields of the stage, then its defaults in order of precedence.
    :param at: the path, as in :class:`~airflow_provider_sewer.core.errors.SewerError`.
    """
    found = [_follow(file, entries, at) for entries in sources]
    _, node = max(found, key=lambda each: each[0], default=(0, None))  # of equally deep ones, the first
    return node


def place_of_path(file: YamlFile, fields: Mapping[str, Entry], field: str, path: str) -> yaml.Node | None:
    """Return the last node of a stage with a path.

    :param fields: fields of the stage.
    :param field: ``products`` or ``dependencies``; tags in other fields count too.
    :param path: the path as written in the file.
    """
    tags = ("!product",) if field == "products" else tuple(tag for tag in PATHS if tag != "!product")
    return max((node for text, node in _paths(file, fields, field, tags) if text == path), key=_place, default=None)


def place_of_stage(
    fields: Mapping[str, Entry], stage_of: Callable[[yaml.Node], str | None], stage: str
) -> yaml.Node | None:
    """Return the first node that makes a stage depend on another one.

    :param fields: fields of the dependent stage.
    :param stage_of: returns the stage that an item of ``depends_on``, or a result, refers to.
    :param stage: name of the upstream stage.
    """
    listed = items(fields["depends_on"].value) if "depends_on" in fields else []
    results = [node for entry in fields.values() for node in inner(entry.value) if node.tag == RESULT]
    return min((node for node in (*listed, *results) if stage_of(node) == stage), key=_place, default=None)


def items(node: yaml.Node) -> list[yaml.Node]:
    """Return the nodes of a list; another node counts as a list with one item."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]


def _follow(file: YamlFile, entries: Mapping[str, Entry], at: tuple[Any, ...]) -> tuple[int, yaml.Node | None]:
    """Return the number of path elements that were found, and the last node."""
    node: yaml.Node | None = None
    for step, part in enumerate(at):
        name = part.key if isinstance(part, Key) else part
        if node is not None and isinstance(node, yaml.SequenceNode):
            if not isinstance(name, int) or name >= len(node.value):
                return step, node
            node = node.value[name]
            continue
        if node is not None:
            entries = file.entries(node, "the value") if isinstance(node, yaml.MappingNode) else {}
        if name not in entries:
            return step, node
        node = entries[name].key if isinstance(part, Key) else entries[name].value
    return len(at), node


def _paths(
    file: YamlFile, fields: Mapping[str, Entry], field: str, tags: Iterable[str]
) -> Iterator[tuple[str, yaml.Node]]:
    for name in (field, _STREAM_OF[field]):
        for node in items(fields[name].value) if name in fields else ():
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
