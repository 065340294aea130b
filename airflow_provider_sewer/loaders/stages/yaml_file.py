"""YAML parser with nodes that have a position, and plain values.

Implicit types of YAML 1.1 that are mostly meant as text are not applied: ``no``, ``1:30:00`` and ``2024-01-01`` are
strings. Only ``true``, ``false``, ``null`` and plain numbers are converted.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from airflow_provider_sewer.core.errors import WorkflowFileError
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.loaders.user_errors import read_workflow_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_sewer.core.errors import SewerError

_STANDARD = "tag:yaml.org,2002:"
_MERGE = f"{_STANDARD}merge"
_NULL = f"{_STANDARD}null"
_TEXT = f"{_STANDARD}str"
_DEEP = 100
#: How many values aliases may add.
_MOST_REPEATED = 100_000
_HALF = re.compile("[\ud800-\udfff]")
_WORDS = {"true": True, "false": False}

#: Implicit types of unquoted scalars: tag, pattern and first characters.
_FORMS = (
    (_NULL, re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    (f"{_STANDARD}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    (f"{_STANDARD}int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"), list("-+0123456789")),
    (
        f"{_STANDARD}float",
        re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z"),
        list("-+.0123456789"),
    ),
    (_MERGE, re.compile(r"<<\Z"), ["<"]),
)

#: Converters from text by tag.
_SCALARS: dict[str, Callable[[str], Any]] = {
    _NULL: lambda _: None,
    f"{_STANDARD}bool": lambda text: _WORDS[text.lower()],
    f"{_STANDARD}int": int,
    f"{_STANDARD}float": float,
    _TEXT: str,
}
_COLLECTIONS: dict[type[yaml.Node], str] = {yaml.SequenceNode: f"{_STANDARD}seq", yaml.MappingNode: f"{_STANDARD}map"}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with fewer implicit types."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 - PyYAML expects a class attribute


for _tag, _form, _first in _FORMS:
    _Loader.add_implicit_resolver(_tag, _form, _first)


class Entry(NamedTuple):
    """Nodes of a mapping entry: its key and its value."""

    key: yaml.Node
    value: yaml.Node


class YamlFile:
    """Parsed YAML file.

    :param path: its absolute path.
    :raises WorkflowFileError: when it cannot be read or parsed; with line and column.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.root = self._composed()
        self._open: set[int] = set()
        self._refuse_too_many()

    def at(self, node: yaml.Node) -> SourceLine:
        """Return the position of a node."""
        return _place(self.path, node.start_mark)

    def error_at(self, node: yaml.Node, message: str, kind: type[SewerError] = WorkflowFileError) -> SewerError:
        """Return an error with the position of a node."""
        return kind(message, self.at(node))

    def entries(self, node: yaml.Node, label: str) -> dict[str, Entry]:
        """Return the entries of a mapping by the text of their keys; ``<<`` merges other mappings.

        :param label: name of the node in messages.
        :raises WorkflowFileError: when it is not a mapping, or has a duplicate key.
        """
        if not isinstance(node, yaml.MappingNode):
            raise self.error_at(node, f"{label} must be a mapping, got {shown(node)}")
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                merged = {**self._merged(value), **merged}
                continue
            name = self.text(key, "a key")
            if name in own:
                first = self.at(own[name].key)
                raise self.error_at(key, f"duplicate key {name!r}, first used in line {first.line}; remove one of them")
            own[name] = Entry(key, value)
        return {**merged, **own}

    def text(self, node: yaml.Node, label: str) -> str:
        """Return a scalar as it is written, without converting it.

        :param label: name of the node in messages.
        :raises WorkflowFileError: when it is not a scalar.
        """
        if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_STANDARD):
            return self._whole(node)
        hint = "; a template needs quotes: '{{ … }}'" if _looks_like_template(node) else ""
        raise self.error_at(node, f"{label} must be a string, got {shown(node)}{hint}")

    def value(self, node: yaml.Node, tagged: Callable[[yaml.Node], Any]) -> Any:
        """Return the value of a node as plain data.

        :param tagged: converter of nodes with a tag such as ``!product``.
        :raises WorkflowFileError: when it contains itself, or text that is not valid for its tag.
        """
        return self.untagged(node, tagged) if node.tag.startswith(_STANDARD) else tagged(node)

    def untagged(self, node: yaml.Node, tagged: Callable[[yaml.Node], Any]) -> Any:
        """Return the value of a node without its own tag; inner nodes are converted as in :meth:`value`."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        standard = _COLLECTIONS[type(node)]
        if node.tag.startswith(_STANDARD) and node.tag != standard:
            raise self.error_at(node, f"unknown tag !!{node.tag.removeprefix(_STANDARD)}; remove it")
        if id(node) in self._open:
            raise self.error_at(node, "the value contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, tagged) for item in node.value]
            return {key: self.value(entry.value, tagged) for key, entry in self.entries(node, "the value").items()}
        except RecursionError:
            raise self.error_at(node, "the value is nested too deeply") from None
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag = node.tag if node.tag.startswith(_STANDARD) else _tag_of(node)
        if tag == _MERGE:
            tag = _TEXT
        name = tag.removeprefix(_STANDARD)
        if tag not in _SCALARS:
            raise self.error_at(node, f"unknown tag !!{name}; remove it")
        try:
            value = _SCALARS[tag](self._whole(node))
        except (KeyError, ValueError):
            raise self.error_at(node, f"{node.value!r:.80} is not a valid !!{name}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error_at(node, f"number {node.value!r:.80} is too large; quote it to use it as a string")
        return value

    def _whole(self, node: yaml.ScalarNode) -> str:
        r"""Return the text of a scalar; reject surrogates from ``\u``, which are half of a character."""
        text = str(node.value)
        if half := _HALF.search(text):
            raise self.error_at(
                node, f"{half[0]!r} is half of a character; write the character, or \\U with eight digits"
            )
        return text

    def _merged(self, node: yaml.Node) -> dict[str, Entry]:
        several = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Entry] = {}
        for each in several:
            if id(each) in self._open:
                raise self.error_at(each, "the value contains itself")
            self._open.add(id(each))
            merged = {**self.entries(each, "<<"), **merged}
            self._open.discard(id(each))
        return merged

    def _composed(self) -> yaml.Node:
        text = self._text()
        try:
            node = _Loader(text).get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            context = f"{error.context}: " if error.context else ""
            place = _place(self.path, mark) if mark else SourceLine(self.path, 0)
            hint = "; use spaces instead of tabs" if "'\\t'" in str(error.problem) else ""
            raise WorkflowFileError(f"invalid YAML: {context}{error.problem}{hint}", place) from None
        except yaml.reader.ReaderError as error:
            message = f"invalid YAML: character {chr(error.character)!r} is not allowed"
            raise WorkflowFileError(message, _position(self.path, text[: error.position])) from None
        except RecursionError:
            raise WorkflowFileError("the value is nested too deeply", _deep_place(self.path, text)) from None
        if node is None:
            raise WorkflowFileError("the file is empty", SourceLine(self.path, 0))
        return node

    def _refuse_too_many(self) -> None:
        """Limit the expansion of nested aliases, which could exhaust memory."""
        sizes: dict[int, int] = {}
        waiting = [self.root]
        while waiting:
            node = waiting[-1]
            children = _children(node)
            if id(node) not in sizes:
                sizes[id(node)] = 0  # for a node in itself, which `untagged` rejects
                waiting += (each for each in children if id(each) not in sizes)
                continue
            waiting.pop()
            sizes[id(node)] = sizes[id(node)] or 1 + sum(sizes[id(each)] for each in children)
            if sizes[id(node)] > len(sizes) + _MOST_REPEATED:
                message = f"aliases expand to more than {_MOST_REPEATED:,} values; have a stage read them from a file"
                raise self.error_at(node, message)

    def _text(self) -> str:
        data = read_workflow_file(self.path)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start].decode("utf-8-sig", "replace")
            raise WorkflowFileError("the file is not valid UTF-8", _position(self.path, before)) from None


def is_null(node: yaml.Node) -> bool:
    """Return whether a node is null."""
    return bool(node.tag == _NULL)


def inner(node: yaml.Node) -> Iterator[yaml.Node]:
    """Return a node and all nodes in it, each once."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        waiting += _children(node)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def shown(node: yaml.Node) -> str:
    """Describe a node for a message."""
    tag = "" if node.tag.startswith(_STANDARD) else f"{node.tag} "
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if is_null(node) and not node.value else f"{tag}{node.value!r:.80}"
    return f"{tag}a list" if isinstance(node, yaml.SequenceNode) else f"{tag}a mapping"


def _looks_like_template(node: yaml.Node) -> bool:
    """Return whether this may be ``{{ … }}`` without quotes, which is a mapping in a mapping."""
    return isinstance(node, yaml.MappingNode) and bool(node.flow_style)


def _tag_of(node: yaml.ScalarNode) -> str:
    """Return the implicit tag of a scalar."""
    if node.style is not None:
        return _TEXT
    return next((tag for tag, form, _ in _FORMS if form.match(node.value)), _TEXT)


def _deep_place(path: str, text: str) -> SourceLine:
    """Return the first position that is nested too deeply."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth == _DEEP:
            return _place(path, event.start_mark)
    return SourceLine(path, 0)


def _place(path: str, mark: Any) -> SourceLine:
    return SourceLine(path, mark.line + 1, mark.column + 1)


def _position(path: str, before: str) -> SourceLine:
    """Return the position after some text."""
    return SourceLine(path, before.count("\n") + 1, len(before) - before.rfind("\n"))
