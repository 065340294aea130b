"""JSONC as VS Code writes it is read, with its offsets; everything else is refused with line and column."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.exporters.jsonc import DEEPEST, parse, tokens

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


@settings(deadline=None)
@given(document=DOCUMENTS, random=st.randoms(use_true_random=False))
def test_parse_ignores_comments_and_trailing_commas(strewn, document, random):
    """Comments, blanks and commas between the tokens do not change the data."""
    assert parse(strewn(document, random)).data == document


@settings(deadline=None)
@given(document=DOCUMENTS, random=st.randoms(use_true_random=False))
def test_parse_value_offsets_match_text(strewn, document, random):
    """The text between start and end of any value reads as that value again."""
    text = strewn(document, random)
    waiting = [parse(text)]
    while waiting:
        value = waiting.pop()
        assert parse(text[value.start : value.end]).data == value.data
        waiting += [*value.elements, *value.members.values()]


@settings(deadline=None)
@given(st.text(alphabet='{}[]:,"\\/* \n019.eE-+truefalsn\x00é', max_size=60))
def test_parse_accepts_or_rejects_any_text_like_strict_json(text):
    """Any text is read or rejected as by strict JSON; no text raises another error."""
    try:
        data = parse(text).data
    except SewerError as error:
        message = str(error)
    else:
        assert json.loads(as_json(text)) == data
        return
    assert re.match(r"[1-9]\d*:[1-9]\d*: \S", message)
    assert not is_json(text)


def test_parse_records_layout_of_containers():
    """To write into an array one has to know where its children end, its comments end, and if a comma is there."""
    text = "[1, /* two */ 2 /* after */, // last\n]"
    inside = parse(text).layout
    assert text[inside.first] == "1"
    assert text[: inside.last].endswith("*/ 2")
    assert text[: inside.tail].endswith("// last")
    assert inside.comma


def test_parse_object_layout_starts_at_first_name():
    """That is where its first line is indented."""
    text = '{ /* a */ "one": 1, "two": 2}'
    assert text[parse(text).layout.first :].startswith('"one"')
    assert parse("{ }").layout.first is None


def test_parse_ignores_comma_in_comment():
    """Only the comma of the array itself counts."""
    assert not parse("[1 /* , */]").layout.comma


def test_parse_keeps_tokens_in_strings():
    """A string may contain the characters of a comment or a bracket."""
    assert parse(r'["// no", "/* no */", "]", "\"", "\\"]').data == ["// no", "/* no */", "]", '"', "\\"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "a": "never', "2:8: unterminated string"),
        ('{"a": "line\nbreak"}', "1:7: unterminated string"),
        ("[1,\r\n /* never ]", "2:2: unterminated comment"),
        (r'["a\x"]', "1:4: the string has an invalid escape"),
        ('["a\tb"]', "1:4: the string has a control character"),
        ("[1 2]", "1:4: expected a comma or ], got 2"),
        ("[1", "1:3: expected a comma or ], got the end of the text"),
        ("[,]", "1:2: expected a value, got ,"),
        ("[1,,]", "1:4: expected a value, got ,"),
        ('{"a" 1}', "1:6: expected a colon, got 1"),
        ("{1: 2}", "1:2: expected a name in double quotes, got 1"),
        ("{'a': 2}", '1:2: unexpected character "\'"'),
        ("{a: 2}", "1:2: unexpected character 'a'"),
        ('{"a": 1}\n}', "2:1: expected the end of the text, got }"),
        ('{"a": 1, /* again */ "a": 2}', '1:22: duplicate name "a" in one object; remove one'),
        ("[01]", "1:3: expected a comma or ], got 1"),
        ("[NaN]", "1:2: unexpected character 'N'"),
        ("", "1:1: expected a value, got the end of the text"),
        ("// only a comment", "1:18: expected a value, got the end of the text"),
        ("[1]\0", "1:4: unexpected character '\\x00'"),
        ("9" * 5000, "1:1: the number has too many digits"),
    ],
)
def test_parse_rejects_invalid_text_with_line_and_column(text, message):
    """The message starts with line and column and names the expected token."""
    with pytest.raises(SewerError) as refused:
        parse(text)
    assert str(refused.value).startswith(message)


def test_parse_limits_nesting_depth():
    """A file of a hundred thousand brackets is an error like any other."""
    assert parse("[" * DEEPEST + "1" + "]" * DEEPEST).elements
    with pytest.raises(SewerError, match=f"^1:{DEEPEST + 2}: the value is nested more than {DEEPEST} levels deep"):
        parse("[" * 100_000)
    with pytest.raises(SewerError, match=f"the value is nested more than {DEEPEST} levels deep"):
        parse('{"a":' * 100_000)


def is_json(text):
    try:
        json.loads(text, object_pairs_hook=without_double_names, parse_constant=refuse)
    except ValueError:
        return False
    return True


def as_json(text):
    """Take comments and trailing commas out."""
    texts = [token.text for token in tokens(text) if token.kind != "comment"]
    pairs = itertools.pairwise(texts)
    return "".join(one for one, following in pairs if one != "," or following not in ("]", "}"))


def refuse(constant):
    raise ValueError(constant)


def without_double_names(pairs):
    if len(dict(pairs)) < len(pairs):
        raise ValueError(pairs)
    return dict(pairs)
