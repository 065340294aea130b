"""Command line arguments from a dictionary of parameters and flags.

The rules are those of sewer files: parameters in their order, then flags; ``True`` is a flag, ``False`` is omitted, any
other value is ``--key value``; ``_`` in keys becomes ``-`` by default. In addition, ``None`` is omitted, a list repeats
the option, a mapping becomes JSON text, and a value without a plain text form is an error instead of a ``repr``.

Most modules parse a value that starts with a dash as an option; ``args=["--key=-x"]`` passes it nevertheless.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.validation import invalid_reason


def to_arguments(
    parameters_and_flags: Mapping[str, Any], *, use_underscores: bool = False, args: Iterable[Any] = ()
) -> list[str]:
    """Return parameters, flags and verbatim arguments as a list of arguments.

    Verbatim arguments come first, for modules with subcommands.

    :raises InvalidTask: when a key or a value is not valid on a command line; it names the key.
    """
    parameters: list[str] = []
    flags: list[str] = []
    for key, value in parameters_and_flags.items():
        at = ("parameters_and_flags", key)
        option = _option(key, use_underscores)
        if value is True:
            flags.append(option)
        elif value is not False and value is not None:
            for text in _texts(f"parameter {key!r}", value, at):
                parameters += [option, text]
    return [*(_text(f"args[{i}]", value, ("args", i)) for i, value in enumerate(args)), *parameters, *flags]


def deep_copy(value: Any) -> Any:
    """Return a deep copy of lists and mappings, independent of later changes of the original."""
    if isinstance(value, (str, int, float)):
        return value
    if type(value) is dict or isinstance(value, Mapping):
        return {key: deep_copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [deep_copy(item) for item in value]
    return value


@lru_cache(maxsize=1024)  # the tasks of a workflow have mostly the same options
def _option(key: object, use_underscores: bool) -> str:
    if not isinstance(key, str):
        message = f"parameter {key!r}: the name must be text, got {type(key).__name__}"
        raise InvalidTask(message, at=("parameters_and_flags", Key(key)))
    if not key or key.startswith("-") or re.search(r"[\s=]", key) or not key.isprintable():
        raise InvalidTask(
            f"parameter {key!r}: write the bare name, such as 'batch_size', without leading dash, space or '='",
            at=("parameters_and_flags", Key(key)),
        )
    return "--" + (key if use_underscores else key.replace("_", "-"))


def _texts(label: str, value: Any, at: tuple[Any, ...]) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [_text(f"{label[:-1]}[{i}]'", item, (*at, i)) for i, item in enumerate(value)]
    return [_text(label, value, at)]


def _text(label: str, value: Any, at: tuple[Any, ...]) -> str:
    text = _json(label, value, at) if isinstance(value, Mapping) else _plain(label, value, at)
    if reason := invalid_reason(text):
        raise InvalidTask(f"{label}: the text {reason}", at=at)
    return text


def _json(label: str, value: Mapping[Any, Any], at: tuple[Any, ...]) -> str:
    try:
        return json.dumps(deep_copy(value), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise InvalidTask(
            f"{label}: it contains itself, or is nested too deeply to be written as JSON", at=at
        ) from None
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"{label}: a mapping is passed as JSON, and {error}", at=at) from None


def _plain(label: str, value: Any, at: tuple[Any, ...]) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if not _has_plain_text(value):
        raise InvalidTask(
            f"{label}: a value of type {type(value).__name__} has no plain text form; "
            "give text, a number, a path, a list of these, or a mapping",
            at=at,
        )
    try:
        return str(value)
    except Exception as error:
        raise InvalidTask(f"{label}: str() failed: {type(error).__name__}: {error}", at=at) from error


def _has_plain_text(value: Any) -> bool:
    if isinstance(value, (str, int, float)):
        return not isinstance(value, bool)
    kind: Any = type(value)
    return kind.__str__ is not object.__str__ and not isinstance(value, (Iterable, type))
