"""Read JSONC, the JSON with comments and trailing commas that VS Code writes, and know where everything stands.

Nothing else is let through: what VS Code would guess about is an error with its line and column.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from airflow_provider_sewer.core.errors import SewerError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Nobody nests this deep by hand; the limit keeps a broken file from exhausting the stack.
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
    """A piece of a JSONC text.

    :param kind: ``comment``, ``string``, ``number``, ``word``, ``mark``, or ``end`` after the last one.
    :param start: offset of its first character.
    :param text: the piece as it is written.
    """

    kind: str
    start: int
    text: str

    @property
    def end(self) -> int:
        """Return the offset after its last character."""
        return self.start + len(self.text)


class Inside(NamedTuple):
    """What one has to know about an object or array to write into it.

    :param first: offset of its first child, which in an object is a name; ``None`` where there is no child.
    :param last: offset after its last child; after the opening bracket where there is none.
    :param tail: offset after the last token before the closing bracket, comments included.
    :param comma: whether a comma follows the last child.
    """

    first: int | None
    last: int
    tail: int
    comma: bool


@dataclass(frozen=True)
class Value:
    """A value in a JSONC text.

    :param start: offset of its first character.
    :param end: offset after its last character.
    :param data: the value as Python data.
    :param inside: the layout of an object or array; ``None`` for anything else.
    :param members: of an object: its values by name.
    :param elements: of an array: its values.
    """

    start: int
    end: int
    data: Any
    inside: Inside | None = None
    members: dict[str, Value] = field(default_factory=dict)
    elements: list[Value] = field(default_factory=list)


def parse(text: str) -> Value:
    """Read a whole JSONC text.

    :raises SewerError: when it is none, when a name stands twice in one object, or when it nests deeper than
        :data:`DEEPEST`; the message starts with line and column.
    """
    reader = _Reader(text)
    value = reader.value(reader.next(), depth=0)
    rest = reader.next()
    if rest.kind != "end":
        reader.refuse(rest, "the end of the text")
    return value


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a JSONC text, comments among them, white space left out; ``end`` is the last.

    :raises SewerError: at the first character that starts none.
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


def fail(text: str, offset: int, what: str) -> NoReturn:
    """Say what is wrong at an offset of the text.

    :raises SewerError: always; the message starts with line and column, both counted from 1.
    """
    lines = re.split(r"\r\n|\r|\n", text[:offset])
    raise SewerError(f"{len(lines)}:{len(lines[-1]) + 1}: {what}")


class _Reader:
    """Goes through the tokens of a text once, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens(text))
        self._next = 0

    def next(self) -> Token:
        """Take the next token that is no comment; the ``end`` is never used up."""
        while self._tokens[self._next].kind == "comment":
            self._next += 1
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def value(self, token: Token, depth: int) -> Value:
        """Read the value that starts with this token."""
        if depth > DEEPEST:
            fail(self._text, token.start, f"this is nested more than {DEEPEST} levels deep")
        if token.text == "{":
            return self._object(token, depth)
        if token.text == "[":
            return self._array(token, depth)
        if token.kind not in ("string", "number", "word"):
            self.refuse(token, "a value")
        try:
            return Value(token.start, token.end, json.loads(token.text))
        except ValueError:
            fail(self._text, token.start, "this number has too many digits")

    def refuse(self, token: Token, wanted: str) -> NoReturn:
        """Say what should stand where this token stands."""
        shown = token.text[:40] or "the end of the text"
        fail(self._text, token.start, f"{wanted} is expected here, not {shown}")

    def _object(self, opening: Token, depth: int) -> Value:
        members: dict[str, Value] = {}
        first, last = None, opening.end
        for token in self._children("}"):
            if token.kind != "string":
                self.refuse(token, "a name in double quotes")
            name = json.loads(token.text)
            if name in members:
                fail(self._text, token.start, f"{token.text} stands twice in one object; take one out")
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
        """Yield the token that each child starts with; the caller reads the rest of the child."""
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
        """Describe the object or array whose closing bracket was just read."""
        before = self._tokens[self._next - 2]
        index = self._next - 2
        while self._tokens[index].kind == "comment":
            index -= 1
        return Inside(first, last, before.end, comma=self._tokens[index].text == ",")


def _refuse_character(text: str, offset: int) -> NoReturn:
    """Say why no token starts here."""
    if text.startswith("/*", offset):
        fail(text, offset, "this comment is never closed")
    start = re.compile(_STRING_START).match(text, offset)
    if start is None:
        fail(text, offset, f"{text[offset]!r} does not belong here")
    stop = start.end()
    if text[stop : stop + 1] in ("", "\r", "\n"):
        fail(text, offset, "this string is never closed")
    what = "an escape that JSON does not know" if text[stop] == "\\" else "a control character that has to be escaped"
    fail(text, stop, f"the string holds {what}")
