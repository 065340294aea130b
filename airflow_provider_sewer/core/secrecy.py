"""Keep secrets out of what is written for people to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

#: What stands in the place of a secret.
MASK = "***"

_SECRET_ENDINGS = ("password", "passwd", "passphrase", "apikey")
_SECRET_WORDS = frozenset(
    {"passwords", "pwd", "secret", "secrets", "token", "credential", "credentials", "authorization"}
)
_SECRET_PAIRS = frozenset({"api key", "private key", "access key", "secret key", "auth key"})


@lru_cache(maxsize=1024)
def looks_secret(key: str) -> bool:
    """Tell whether an option or a variable of this name probably holds a secret."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).lower())
    pairs = {f"{one} {two}" for one, two in zip(words, words[1:])}
    return (
        any(word.endswith(_SECRET_ENDINGS) for word in words)
        or not _SECRET_WORDS.isdisjoint(words)
        or not _SECRET_PAIRS.isdisjoint(pairs)
    )


def masked_words(words: Iterable[str], secrets: Iterable[str] = ()) -> list[str]:
    """Return the words of a command line with its secrets masked.

    These are the values of options whose name looks secret, be it ``--password x``, ``--password=x`` or
    ``db.password=x``; of such keys inside JSON; and known secrets, wherever they stand.
    """
    known = longest_first(secrets)
    masked: list[str] = []
    after_secret = False
    for word in words:
        if not after_secret and not known and "=" not in word and not word.startswith(("-", "{")):
            masked.append(word)
            continue
        option, equals, _ = word.partition("=")
        can_name = bool(equals) or word.startswith("-")
        is_secret = can_name and " " not in option and looks_secret(option)
        if after_secret and not word.startswith("--"):
            masked.append(MASK)
        elif equals and is_secret:
            masked.append(f"{option}={MASK}")
        else:
            masked.append(without(known, _masked_json(word)))
        after_secret = word.startswith("-") and not equals and is_secret
    return masked


def masked_env(env: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables, the secret ones masked, and their values in the others as well."""
    secrets = secret_values(env)
    return {name: MASK if looks_secret(name) else without(secrets, value) for name, value in env.items()}


def secret_values(env: Mapping[str, str]) -> list[str]:
    """Return the values of the variables whose name looks secret."""
    return longest_first(value for name, value in env.items() if looks_secret(name))


def longest_first(secrets: Iterable[str]) -> list[str]:
    """Order secrets so that one which is part of another does not leave the rest of it standing."""
    return sorted(filter(None, secrets), key=len, reverse=True)


def without(secrets: Iterable[str], text: str) -> str:
    """Return text with these values masked wherever they stand in it."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def masked_data(value: Any) -> Any:
    """Return data with the values of keys that look secret masked, however deep."""
    if isinstance(value, Mapping):
        return {key: _masked(item) if looks_secret(str(key)) else masked_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked_data(item) for item in value]
    return value


def _masked(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    return [MASK for _ in value] if isinstance(value, (list, tuple)) else MASK


def _masked_json(word: str) -> str:
    if not word.startswith("{"):
        return word
    try:
        data = json.loads(word)
    except (ValueError, RecursionError):
        return word
    masked = masked_data(data)
    return word if masked == data else json.dumps(masked, ensure_ascii=False)
