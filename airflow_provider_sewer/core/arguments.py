"""A dictionary of parameters and flags → the arguments of a command line.

The rules are those of sewer files: parameters in their order, then flags; ``True`` is a flag,
``False`` is nothing, anything else is ``--key value``; ``_`` becomes ``-`` in keys unless told
otherwise. On top of them: ``None`` is left out, a list repeats the option, a mapping becomes JSON
text, and what has no plain text form is an error instead of a ``repr``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask

_SECRET_WORDS = frozenset({"password", "passwd", "passphrase", "secret", "token", "apikey", "credential", "credentials"})
_SECRET_PAIRS = frozenset({"api key", "private key", "access key", "secret key", "auth key"})


def to_arguments(
    parameters_and_flags: Mapping[str, Any], *, use_underscores: bool = False, args: Iterable[Any] = ()
) -> list[str]:
    """Write parameters, flags and verbatim arguments as a list of arguments.

    Verbatim arguments come first, so that a module with subcommands can be given one.

    :raises InvalidTask: when a key or a value cannot stand on a command line; it names the key.
    """
    parameters: list[str] = []
    flags: list[str] = []
    for key, value in parameters_and_flags.items():
        option = _option(key, use_underscores)
        if value is True:
            flags.append(option)
        elif value is not False and value is not None:
            for text in _texts(key, value):
                parameters += [option, text]
    return [*(_text(f"args[{i}]", value) for i, value in enumerate(args)), *parameters, *flags]


def looks_secret(key: str) -> bool:
    """Tell whether an option or a variable of this name probably holds a secret."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).lower())
    pairs = {f"{one} {two}" for one, two in zip(words, words[1:])}
    return not _SECRET_WORDS.isdisjoint(words) or not _SECRET_PAIRS.isdisjoint(pairs)


def _option(key: object, use_underscores: bool) -> str:
    if not isinstance(key, str):
        raise InvalidTask(f"parameter {key!r}: a name is text, not {type(key).__name__}")
    if not key or key.startswith("-") or re.search(r"[\s\0=]", key):
        raise InvalidTask(
            f"parameter {key!r}: write the bare name, such as 'batch_size'; no leading dash, space or '='"
        )
    return "--" + (key if use_underscores else key.replace("_", "-"))


def _texts(key: str, value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [_text(f"{key}[{i}]", item) for i, item in enumerate(value)]
    return [_text(key, value)]


def _text(key: str, value: Any) -> str:
    text = _json(key, value) if isinstance(value, Mapping) else _plain(key, value)
    if "\0" in text:
        raise InvalidTask(f"parameter {key!r}: a NUL byte cannot stand on a command line; take it out")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidTask(f"parameter {key!r}: {error.reason}; this text cannot be passed to a process") from None
    return text


def _json(key: str, value: Mapping[Any, Any]) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"parameter {key!r}: a mapping is passed as JSON, and {error}") from None


def _plain(key: str, value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else os.fsdecode(path)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    has_text_form = type(value).__str__ is not object.__str__ and not isinstance(value, (bool, bytes, bytearray, type))
    if value is None or isinstance(value, Iterable) or not has_text_form:
        raise InvalidTask(
            f"parameter {key!r}: a value of type {type(value).__name__} has no plain text form; "
            "give text, a number, a path, a list of these, or a mapping"
        )
    return str(value)
