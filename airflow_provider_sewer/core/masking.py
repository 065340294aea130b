"""Masking of known secrets in text, in all forms in which programs write them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Callable, Union

from airflow_provider_sewer.core.errors import SewerError

#: The text in place of a secret.
MASK = "***"

#: Values that are not secret under any name.
PLAIN = frozenset({"", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null"})

#: Like Airflow, masking ignores short values, which would be masked everywhere.
_SHORTEST = 5
#: Shorter pieces of base64 also occur by chance.
_SHORTEST_BASE64 = 10

#: Returns the replacement of a secret of this name, which may be empty.
Write = Callable[[str], str]


def as_mask(_name: str) -> str:
    """Return the mask of a secret."""
    return MASK


class Secrets:
    """Values that must not be shown, in all forms in which programs usually write them.

    :param values: the secrets; a mapping also has the name of each.
    """

    def __init__(self, values: Union[Iterable[str], Mapping[str, str]] = ()) -> None:
        names = values if isinstance(values, Mapping) else dict.fromkeys(values, "")
        named = {form: name for value, name in names.items() for form in forms(value)}
        #: The longest first, so that a secret that is part of another does not leave the rest unmasked.
        self.forms = sorted(named, key=len, reverse=True)
        self._named = named

    def __bool__(self) -> bool:
        """Return whether there are secrets to mask."""
        return bool(self.forms)

    def mask(self, text: str, write: Write = as_mask) -> str:
        """Return text with the secrets in it masked."""
        pattern = self._pattern(text)
        return pattern.sub(lambda found: write(self._named[found[0]]), text) if pattern else text

    def names_in(self, text: str) -> Iterator[str]:
        """Yield the name of each secret that occurs in a text."""
        yield from (self._named[form] for form in self.forms if form in text)

    def split(self, text: str) -> tuple[str, str]:
        """Return the part of an unfinished text that can be shown, masked, and the rest.

        The rest may be the beginning of a secret. Followed by more text, it is masked like text in one piece.
        """
        shown: list[str] = []
        pattern = self._pattern(text)
        at, rest = 0, self._beginning(text, 0)
        while pattern and (found := pattern.search(text, at)) and found.start() < rest:
            shown += [text[at : found.start()], MASK]
            at = found.end()
            if rest < at:
                rest = self._beginning(text, at)
        return "".join([*shown, text[at:rest]]), text[rest:]

    def _pattern(self, text: str) -> re.Pattern[str] | None:
        """Return a pattern of those forms that occur in a text; a pattern of all of them would be slow."""
        present = [form for form in self.forms if form in text]
        return re.compile("|".join(map(re.escape, present))) if present else None

    def _beginning(self, text: str, at: int) -> int:
        """Return the first position from which the text is an incomplete beginning of a secret."""
        first = len(text)
        for form in self.forms:
            start = text.find(form[0], max(at, len(text) - len(form) + 1))
            while 0 <= start < first:
                if form.startswith(text[start:]):
                    first = start
                start = text.find(form[0], start + 1)
        return first


NO_SECRETS = Secrets()


@contextmanager
def masking_errors(secrets: Collection[str]) -> Iterator[None]:
    """Mask secrets in the messages of this package's errors in the block, and drop their causes, which can have them.

    :param secrets: the values; those that are added in the block count too.
    """
    try:
        yield
    except SewerError as error:
        known = Secrets(secrets)
        masked = known.mask(str(error))
        if masked == str(error):
            raise
        error.message, error.args = known.mask(error.message), (masked,)
        raise error from None


@lru_cache(maxsize=256)
def forms(secret: str) -> tuple[str, ...]:
    """Return the forms of a secret in output, which is masked line by line.

    These are the secret as written by Python, JSON, shells and URLs, and in base64; and each of its lines.
    """
    from urllib.parse import unquote

    whole = {secret.strip(), unquote(secret.strip())}
    lines = {line.strip() for text in whole for line in text.splitlines()}
    written = {form for text in whole if len(text) >= _SHORTEST for form in _written(text)}
    written |= {form for text in lines if len(text) >= _SHORTEST for form in (text, *_quoted(text))}
    return tuple(form for form in written if "\n" not in form and form.lower() not in PLAIN)


def _written(text: str) -> Iterator[str]:
    yield text
    once = set(_quoted(text))
    yield from once
    for quoted in once:  # e.g. JSON in JSON
        yield from _quoted(quoted)
    yield from _for_shells(text)
    yield from _for_urls(text)
    yield from _in_base64(text.encode("utf-8", "surrogateescape"))


def _quoted(text: str) -> Iterator[str]:
    """Return text as JSON and Python write it between quotation marks."""
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    data = text.encode("utf-8", "surrogateescape")
    # Python puts a text with a double quotation mark between single ones.
    for single in (repr('"' + text)[2:-1], ascii('"' + text)[2:-1], repr(b'"' + data)[3:-1]):
        yield single
        yield single.replace("\\'", "'")
    yield data.decode("utf-8", "backslashreplace")


def _for_shells(text: str) -> Iterator[str]:
    yield text.replace("'", "'\\''")
    yield text.replace("'", "'\"'\"'")
    yield re.sub(r'(["\\$`])', r"\\\1", text)
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", text)


def _for_urls(text: str) -> Iterator[str]:
    from urllib.parse import quote, quote_plus

    for coded in (
        *(quote(text, safe, errors="surrogateescape") for safe in ("", "/", "!~*'()")),
        quote_plus(text, errors="surrogateescape"),
    ):
        yield coded
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), coded)


def _in_base64(data: bytes) -> Iterator[str]:
    """Return data in base64, without the ends that depend on the text around it, as in ``user:password``."""
    from base64 import b64encode

    for before in range(3):
        coded = b64encode(bytes(before) + data).decode()
        # The first letters depend on the bytes before, and one after them on the bytes that follow.
        inner = coded[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
        if len(inner) >= _SHORTEST_BASE64:
            yield inner
            yield inner.replace("+", "-").replace("/", "_")
