"""YAML files → nodes that know where they were written, and the plain values in them.

What YAML 1.1 makes of text that people mean as text is left out: ``no``, ``1:30:00`` and ``2024-01-01`` stay what is
written there. Only ``true``, ``false``, ``null`` and plain numbers are more than text.
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
#: How many values aliases can add to those that are written.
_MOST_REPEATED = 100_000
_HALF = re.compile("[\ud800-\udfff]")
_WORDS = {"true": True, "false": False}

#: What text without quotes can be besides text: tag, form, and what it can begin with.
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

#: From the tag of a scalar to what makes a value of its text.
_SCALARS: dict[str, Callable[[str], Any]] = {
    _NULL: lambda _: None,
    f"{_STANDARD}bool": lambda text: _WORDS[text.lower()],
    f"{_STANDARD}int": int,
    f"{_STANDARD}float": float,
    _TEXT: str,
}
_COLLECTIONS: dict[type[yaml.Node], str] = {yaml.SequenceNode: f"{_STANDARD}seq", yaml.MappingNode: f"{_STANDARD}map"}


class _Loader(yaml.SafeLoader):
    """The safe loader, with other ideas of what is more than text."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 - PyYAML's own way


for _tag, _form, _first in _FORMS:
    _Loader.add_implicit_resolver(_tag, _form, _first)


class Entry(NamedTuple):
    """An entry of a mapping.

    :param key: the node of its key.
    :param value: the node of its value.
    """

    key: yaml.Node
    value: yaml.Node


class YamlFile:
    """A YAML file.

    :param path: its absolute path.
    :raises WorkflowFileError: when it cannot be read; with line and column.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.root = self._composed()
        self._open: set[int] = set()
        self._refuse_too_many()

    def at(self, node: yaml.Node) -> SourceLine:
        """Return where a node begins."""
        return _place(self.path, node.start_mark)

    def wrong(self, node: yaml.Node, said: str, kind: type[SewerError] = WorkflowFileError) -> SewerError:
        """Return the error that is to be raised for what stands there."""
        return kind(said, self.at(node))

    def entries(self, node: yaml.Node, what: str) -> dict[str, Entry]:
        """Return the entries of a mapping by the text of their keys; ``<<`` brings in those of others.

        :param what: what has to be a mapping, for the message.
        :raises WorkflowFileError: when it is none, or has two entries of one key.
        """
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what}: a mapping is needed, not {shown(node)}")
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                merged = {**self._merged(value), **merged}
                continue
            name = self.text(key, "a key")
            if name in own:
                first = self.at(own[name].key)
                raise self.wrong(key, f"{name!r} is here a second time, after line {first.line}; take one of them out")
            own[name] = Entry(key, value)
        return {**merged, **own}

    def text(self, node: yaml.Node, what: str) -> str:
        """Return a scalar as it is written, whatever else it could be taken for.

        :param what: what has to be text, for the message.
        :raises WorkflowFileError: when it is no scalar.
        """
        if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_STANDARD):
            return self._whole(node)
        hint = "; a template needs quotes: '{{ … }}'" if _looks_like_template(node) else ""
        raise self.wrong(node, f"{what} is text, not {shown(node)}{hint}")

    def value(self, node: yaml.Node, tagged: Callable[[yaml.Node], Any]) -> Any:
        """Return what a node says, as plain data.

        :param tagged: returns what a node with a tag says, such as ``!product``.
        :raises WorkflowFileError: when it holds itself, or text that does not fit its tag.
        """
        return self.untagged(node, tagged) if node.tag.startswith(_STANDARD) else tagged(node)

    def untagged(self, node: yaml.Node, tagged: Callable[[yaml.Node], Any]) -> Any:
        """Return what a node says but for its own tag; as :meth:`value` for what is in it."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        standard = _COLLECTIONS[type(node)]
        if node.tag.startswith(_STANDARD) and node.tag != standard:
            raise self.wrong(node, f"!!{node.tag.removeprefix(_STANDARD)} is not known here; take it out")
        if id(node) in self._open:
            raise self.wrong(node, "this holds itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, tagged) for item in node.value]
            return {key: self.value(entry.value, tagged) for key, entry in self.entries(node, "this").items()}
        except RecursionError:
            raise self.wrong(node, "this is nested too deeply") from None
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag = node.tag if node.tag.startswith(_STANDARD) else _tag_of(node)
        if tag == _MERGE:
            tag = _TEXT
        name = tag.removeprefix(_STANDARD)
        if tag not in _SCALARS:
            raise self.wrong(node, f"!!{name} is not known here; take it out")
        try:
            value = _SCALARS[tag](self._whole(node))
        except (KeyError, ValueError):
            raise self.wrong(node, f"!!{name}: {node.value!r:.80} is none") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(node, f"{node.value!r:.80} is too large for a number; in quotes it is text")
        return value

    def _whole(self, node: yaml.ScalarNode) -> str:
        r"""Return the text of a scalar, in which ``\u`` must not have written half of a character."""
        text = str(node.value)
        if half := _HALF.search(text):
            raise self.wrong(node, f"{half[0]!r} is half of a character; write it itself, or as \\U with eight digits")
        return text

    def _merged(self, node: yaml.Node) -> dict[str, Entry]:
        several = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Entry] = {}
        for each in several:
            if id(each) in self._open:
                raise self.wrong(each, "this holds itself")
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
            hint = "; YAML wants spaces there, no tab" if "'\\t'" in str(error.problem) else ""
            raise WorkflowFileError(f"this is no YAML: {context}{error.problem}{hint}", place) from None
        except yaml.reader.ReaderError as error:
            said = f"this is no YAML: {chr(error.character)!r} cannot stand in it"
            raise WorkflowFileError(said, _position(self.path, text[: error.position])) from None
        except RecursionError:
            raise WorkflowFileError("this is nested too deeply", _deep_place(self.path, text)) from None
        if node is None:
            raise WorkflowFileError("the file is empty", SourceLine(self.path, 0))
        return node

    def _refuse_too_many(self) -> None:
        """Keep a few lines, in which aliases stand for lists of aliases, from becoming more than there is room for."""
        sizes: dict[int, int] = {}
        waiting = [self.root]
        while waiting:
            node = waiting[-1]
            within = _within(node)
            if id(node) not in sizes:
                sizes[id(node)] = 0  # where it holds itself, which is said elsewhere
                waiting += (each for each in within if id(each) not in sizes)
                continue
            waiting.pop()
            sizes[id(node)] = sizes[id(node)] or 1 + sum(sizes[id(each)] for each in within)
            if sizes[id(node)] > len(sizes) + _MOST_REPEATED:
                said = f"aliases make more than {_MOST_REPEATED:,} values of this; have a stage read them from a file"
                raise self.wrong(node, said)

    def _text(self) -> str:
        data = read_workflow_file(self.path)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start].decode("utf-8-sig", "replace")
            raise WorkflowFileError("this is no text in UTF-8", _position(self.path, before)) from None


def is_null(node: yaml.Node) -> bool:
    """Tell whether nothing is said there."""
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
        waiting += _within(node)


def _within(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def shown(node: yaml.Node) -> str:
    """Say what stands somewhere, for a message."""
    tag = "" if node.tag.startswith(_STANDARD) else f"{node.tag} "
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if is_null(node) and not node.value else f"{tag}{node.value!r:.80}"
    return f"{tag}a list" if isinstance(node, yaml.SequenceNode) else f"{tag}a mapping"


def _looks_like_template(node: yaml.Node) -> bool:
    """Tell whether somebody wrote ``{{ … }}`` without quotes, which is a mapping in a mapping."""
    return isinstance(node, yaml.MappingNode) and bool(node.flow_style)


def _tag_of(node: yaml.ScalarNode) -> str:
    """Return the tag that a scalar would have if it had none of its own."""
    if node.style is not None:
        return _TEXT
    return next((tag for tag, form, _ in _FORMS if form.match(node.value)), _TEXT)


def _deep_place(path: str, text: str) -> SourceLine:
    """Return the first place that lies so deep that nobody means it."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth == _DEEP:
            return _place(path, event.start_mark)
    return SourceLine(path, 0)


def _place(path: str, mark: Any) -> SourceLine:
    return SourceLine(path, mark.line + 1, mark.column + 1)


def _position(path: str, before: str) -> SourceLine:
    """Return the place after some text."""
    return SourceLine(path, before.count("\n") + 1, len(before) - before.rfind("\n"))
