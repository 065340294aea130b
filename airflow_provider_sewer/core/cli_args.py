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
from airflow_provider_sewer.core.size_limits import invalid_reason


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
        option = _option(key, use_underscores)
        if value is True:
            flags.append(option)
        elif isinstance(value, (list, tuple)):
            for i, item in enumerate(value):
                parameters += [option, _text(item, "parameters_and_flags", key, i)]
        elif value is not False and value is not None:
            parameters += [option, _text(value, "parameters_and_flags", key)]
    return [*(_text(value, "args", i) for i, value in enumerate(args)), *parameters, *flags]


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


def _text(value: Any, *at: Any) -> str:
    """Return the text of a value.

    :param at: the field of the task, then the keys and positions that lead to the value.
    """
    try:
        text = value if type(value) is str else _json(value) if isinstance(value, Mapping) else _plain(value)
        if reason := invalid_reason(text):
            raise InvalidTask(f"the text {reason}")
    except InvalidTask as error:
        raise InvalidTask(f"{_label(*at)}: {error}", at=at) from error.__cause__
    return text


def _label(field: str, key: Any, index: int | None = None) -> str:
    if field == "args":
        return f"args[{key}]"
    label = f"parameter {key!r}"
    return label if index is None else f"{label[:-1]}[{index}]'"


def _json(value: Mapping[Any, Any]) -> str:
    try:
        return json.dumps(value, default=_as_dict, ensure_ascii=False, allow_nan=False, check_circular=False)
    except RecursionError:
        raise InvalidTask("it contains itself, or is nested too deeply to be written as JSON") from None
    except (TypeError, ValueError) as error:
        raise InvalidTask(f"a mapping is passed as JSON, and {error}") from None


def _as_dict(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _plain(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if not _has_plain_text(value):
        raise InvalidTask(
            f"a value of type {type(value).__name__} has no plain text form; "
            "give text, a number, a path, a list of these, or a mapping"
        )
    try:
        return str(value)
    except Exception as error:
        raise InvalidTask(f"str() failed: {type(error).__name__}: {error}") from error


def _has_plain_text(value: Any) -> bool:
    if isinstance(value, (str, int, float)):
        return not isinstance(value, bool)
    kind: Any = type(value)
    return kind.__str__ is not object.__str__ and not isinstance(value, (Iterable, type))
