"""Parser with positions for JSONC, the JSON with comments and trailing commas of VS Code.

Any other syntax is an error with line and column, also where VS Code would accept it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from airflow_provider_sewer.core.errors import SewerError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Maximum nesting depth; keeps a broken file from exhausting the stack.
DEEPEST = 100

_STRING_START = r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*'
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n]+)
    | (?P<comment>//[^\r\n]*|/\*(?s:.*?)\*/)
    | (?P<string>{_STRING_START}")
    | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    | (?P<word>true|false|null)
    | (?P<mark>[{{}}\[\]:,])""",
    re.VERBOSE,
)


class Token(NamedTuple):
    """Token of a JSONC text.

    :param kind: ``comment``, ``string``, ``number``, ``word``, ``mark``, or ``end`` after the last one.
    :param start: offset of its first character.
    :param text: its text.
    """

    kind: str
    start: int
    text: str

    @property
    def end(self) -> int:
        """Return the offset after its last character."""
        return self.start + len(self.text)


class Inside(NamedTuple):
    """Layout of an object or array, for inserting children.

    :param first: offset of its first child, which in an object is a name; ``None`` without children.
    :param last: offset after its last child; without children, after the opening bracket.
    :param tail: offset after the last token before the closing bracket, comments included.
    :param comma: whether a comma follows the last child.
    """

    first: int | None
    last: int
    tail: int
    comma: bool


@dataclass(frozen=True)
class Value:
    """Value in a JSONC text.

    :param start: offset of its first character.
    :param end: offset after its last character.
    :param data: the value as Python data.
    :param inside: layout of an object or array; ``None`` for other values.
    :param members: of an object: its values by name.
    :param elements: of an array: its values.
    """

    start: int
    end: int
    data: Any
    layout: Inside | None = None
    members: dict[str, Value] = field(default_factory=dict)
    elements: list[Value] = field(default_factory=list)


def parse(text: str) -> Value:
    """Parse a JSONC text.

    :raises SewerError: when the text is not valid, an object has a duplicate name, or the nesting is deeper than
        :data:`DEEPEST`; the message starts with line and column.
    """
    reader = _Reader(text)
    value = reader.value(reader.next(), depth=0)
    rest = reader.next()
    if rest.kind != "end":
        reader.refuse(rest, "the end of the text")
    return value


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a JSONC text including comments, without white space; the last one is ``end``.

    :raises SewerError: at the first character that does not start a token.
    """
    offset = 0
    while offset < len(text):
        found = _TOKEN.match(text, offset)
        if found is None:
            _refuse_character(text, offset)
        if found.lastgroup != "space":
            yield Token(str(found.lastgroup), offset, found[0])
        offset = found.end()
    yield Token("end", offset, "")


def fail(text: str, offset: int, message: str) -> NoReturn:
    """Raise an error for an offset of the text.

    :raises SewerError: always; the message starts with line and column, both counted from 1.
    """
    lines = re.split(r"\r\n|\r|\n", text[:offset])
    raise SewerError(f"{len(lines)}:{len(lines[-1]) + 1}: {message}")


class _Reader:
    """Recursive-descent parser of the tokens of a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens(text))
        self._next = 0

    def next(self) -> Token:
        """Return the next token that is not a comment; at the end, always ``end``."""
        while self._tokens[self._next].kind == "comment":
            self._next += 1
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def value(self, token: Token, depth: int) -> Value:
        """Parse the value that starts with this token."""
        if depth > DEEPEST:
            fail(self._text, token.start, f"the value is nested more than {DEEPEST} levels deep")
        if token.text == "{":
            return self._object(token, depth)
        if token.text == "[":
            return self._array(token, depth)
        if token.kind not in ("string", "number", "word"):
            self.refuse(token, "a value")
        try:
            return Value(token.start, token.end, json.loads(token.text))
        except ValueError:
            fail(self._text, token.start, "the number has too many digits")

    def refuse(self, token: Token, expected: str) -> NoReturn:
        """Raise an error for an unexpected token."""
        shown = token.text[:40] or "the end of the text"
        fail(self._text, token.start, f"expected {expected}, got {shown}")

    def _object(self, opening: Token, depth: int) -> Value:
        members: dict[str, Value] = {}
        first, last = None, opening.end
        for token in self._children("}"):
            if token.kind != "string":
                self.refuse(token, "a name in double quotes")
            name = json.loads(token.text)
            if name in members:
                fail(self._text, token.start, f"duplicate name {token.text} in one object; remove one")
            colon = self.next()
            if colon.text != ":":
                self.refuse(colon, "a colon")
            members[name] = self.value(self.next(), depth + 1)
            first, last = token.start if first is None else first, members[name].end
        data = {name: member.data for name, member in members.items()}
        return Value(opening.start, self._end(), data, self._inside(first, last), members=members)

    def _array(self, opening: Token, depth: int) -> Value:
        elements = [self.value(token, depth + 1) for token in self._children("]")]
        first, last = (elements[0].start, elements[-1].end) if elements else (None, opening.end)
        data = [element.data for element in elements]
        return Value(opening.start, self._end(), data, self._inside(first, last), elements=elements)

    def _children(self, closing: str) -> Iterator[Token]:
        """Yield the first token of each child; the caller parses the rest of the child."""
        token = self.next()
        while token.text != closing:
            yield token
            token = self.next()
            if token.text == ",":
                token = self.next()
            elif token.text != closing:
                self.refuse(token, f"a comma or {closing}")

    def _end(self) -> int:
        return self._tokens[self._next - 1].end

    def _inside(self, first: int | None, last: int) -> Inside:
        """Return the layout of the object or array that was just closed."""
        before = self._tokens[self._next - 2]
        index = self._next - 2
        while self._tokens[index].kind == "comment":
            index -= 1
        return Inside(first, last, before.end, comma=self._tokens[index].text == ",")


def _refuse_character(text: str, offset: int) -> NoReturn:
    """Raise an error for a character that does not start a token."""
    if text.startswith("/*", offset):
        fail(text, offset, "unterminated comment")
    start = re.compile(_STRING_START).match(text, offset)
    if start is None:
        fail(text, offset, f"unexpected character {text[offset]!r}")
    stop = start.end()
    if text[stop : stop + 1] in ("", "\r", "\n"):
        fail(text, offset, "unterminated string")
    problem = "an invalid escape" if text[stop] == "\\" else "a control character, which must be escaped"
    fail(text, stop, f"the string has {problem}")
