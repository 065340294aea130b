"""Secrets are masked in all the forms in which programs write them, and however the text is cut."""

from __future__ import annotations

import base64
import json
import re
import shlex
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_sewer.core.masking import MASK, Secrets, forms

SECRET = "pa\"ss'/wörd\\x1 $`&+é"

WRITTEN = {
    "as it is": lambda text: text,
    "json": lambda text: json.dumps({"token": text}),
    "json with letters as they are": lambda text: json.dumps([text], ensure_ascii=False),
    "json in json": lambda text: json.dumps({"body": json.dumps({"token": text})}),
    "repr": repr,
    "repr of a dict": lambda text: repr({"token": text, "other": "it's"}),
    "repr of a text around it": lambda text: repr(f"it's {text!r}"),
    "ascii": ascii,
    "repr of bytes": lambda text: repr(text.encode()),
    "repr of json": lambda text: repr(json.dumps({"token": text})),
    "shlex": shlex.quote,
    "as set -x writes it": lambda text: "'" + text.replace("'", "'\\''") + "'",
    "as declare -p writes it": lambda text: '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"',
    "url": lambda text: f"https://me:{quote(text, safe='')}@host/",
    "path of a url": quote,
    "url in lower case": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "form": quote_plus,
    "query": lambda text: urlencode({"token": text}),
    "encodeURIComponent": lambda text: quote(text, safe="!~*'()"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of user and password": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(f"me:{text}@".encode()).decode(),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("secret", [SECRET, "plain-token-4711", "it's \\ two", 'quo"ted"\\'])
def test_mask_covers_usual_forms(written, secret):
    """No recognizable part of a secret is left; a few letters of base64 depend on those around them."""
    shown = Secrets([secret]).mask(written(secret))
    assert MASK in shown
    for start in range(len(secret) - 5):
        assert written(secret[start : start + 6]) not in shown
        assert secret[start : start + 6] not in shown


def test_mask_covers_lines_of_a_secret():
    """Logs are masked line by line, and a key file is also printed as one text."""
    key = "-----BEGIN KEY-----\n  c2VjcmV0IGtleQ==\r\n-----END KEY-----\n"
    secrets = Secrets([key])
    assert secrets.mask("line: c2VjcmV0IGtleQ== end") == "line: *** end"
    assert "c2Vj" not in secrets.mask(repr({"key": key}))
    assert "c2Vj" not in secrets.mask(json.dumps(key))


def test_mask_covers_the_decoded_password_of_a_url():
    """Programs decode it before they use it."""
    assert Secrets(["p%40ss%2Fword"]).mask("p%40ss%2Fword p@ss/word") == "*** ***"


@pytest.mark.parametrize("value", ["", "abc", "1", "True", "false", "a\nb", "   "])
def test_forms_of_short_or_plain_values_are_none(value):
    """They would be masked everywhere."""
    assert forms(value) == ()


def test_mask_writes_names_of_secrets():
    """A text with variables in place of secrets can be used."""
    secrets = Secrets({"open-sesame": "TOKEN"})
    assert secrets.mask('a "open-sesame"', lambda name: f"${name}") == 'a "$TOKEN"'


def test_mask_takes_the_longer_of_two_secrets():
    """The rest of it would stay."""
    assert Secrets(["abcde", "abcdefgh"]).mask("xabcdefghx") == "x***x"


PIECES = ["se", "cret", "secret", "secrets!", "x", "\\", '"', "ecre", "se\\", "cret-long", "-long-er", "s"]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
@example(["secret", "s!"])
@example(["secret-lo", "ng-e", "r"])
def test_split_shows_the_same_however_a_text_is_cut(pieces):
    """Secrets that begin alike, hold each other or overlap are found as in the whole text."""
    secrets = Secrets(["secret", "secrets!", "secret-long-er", 'se\\cr"et', "ecretx"])
    shown, rest = "", ""
    for piece in pieces:
        more, rest = secrets.split(rest + piece)
        shown += more
    assert shown + secrets.mask(rest) == secrets.mask("".join(pieces))


def test_split_holds_back_only_the_beginning_of_a_secret():
    """A progress bar is shown while it is drawn."""
    secrets = Secrets(["secret" * 100])
    assert secrets.split("12 % done") == ("12 % done", "")
    assert secrets.split("12 % of sec") == ("12 % of ", "sec")
