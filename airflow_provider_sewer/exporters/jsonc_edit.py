"""Edits of a JSONC text that keep its style and all other characters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.exporters.json_text import to_json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_provider_sewer.exporters.jsonc import Value


class Edit(NamedTuple):
    """Replacement of the text from ``start`` to ``end``."""

    start: int
    end: int
    text: str


class Style(NamedTuple):
    """Style of a text.

    :param newline: its line end.
    :param indent: indentation of one level.
    """

    newline: str
    indent: str


def style_of(text: str, root: Value) -> Style:
    """Return the style of a text; default: four spaces and a line feed."""
    newline = re.search(r"\r\n|\r|\n", text)
    indent = ""
    if root.layout and root.layout.first is not None:
        indent = _indent(text, root.layout.first).removeprefix(_indent(text, root.start))
    return Style(newline[0] if newline else "\n", indent or "    ")


def replaced(text: str, value: Value, data: Any, style: Style) -> Edit:
    """Return the edit that replaces a value."""
    return Edit(value.start, value.end, _laid_out(to_json_text(data, style.indent), _indent(text, value.start), style))


def appended(text: str, container: Value, children: Sequence[str], style: Style) -> list[Edit]:
    """Return the edits that append children to an object or array, after its last comment.

    :param children: JSON texts: elements of an array, or ``"name": value`` pairs of an object.
    """
    inside = container.layout
    if inside is None or not children:
        return []
    outer = _indent(text, container.start)
    inner = outer + style.indent
    if inside.first is not None and _starts_line(text, inside.first):
        inner = _indent(text, inside.first)
    added = ",".join(style.newline + inner + _laid_out(child, inner, style) for child in children)
    closing = text[inside.tail : container.end - 1]
    if "\n" not in closing and "\r" not in closing:
        closing = style.newline + outer
    needs_comma = inside.first is not None and not inside.comma
    return [
        # A comment after the last child stays there, so the comma and the new children are separate edits.
        Edit(inside.last, inside.last, "," if needs_comma else ""),
        Edit(inside.tail, container.end - 1, added + ("," if inside.comma else "") + closing),
    ]


def applied(text: str, edits: Iterable[Edit]) -> str:
    """Apply edits whose offsets refer to the original text."""
    pieces: list[str] = []
    done = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join([*pieces, text[done:]])


def _laid_out(json_text: str, indent: str, style: Style) -> str:
    # JSON escapes line breaks in strings, so these are all between tokens.
    return json_text.replace("\n", style.newline + indent)


def _line_start(text: str, offset: int) -> int:
    return max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1


def _indent(text: str, offset: int) -> str:
    """Return the leading white space of the line at an offset."""
    start = _line_start(text, offset)
    line = text[start:offset]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _starts_line(text: str, offset: int) -> bool:
    return not text[_line_start(text, offset) : offset].strip(" \t")
