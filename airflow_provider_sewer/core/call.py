"""Calls for an interpreter: a module, or a function with keyword arguments and a result in JSON."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Tuple

from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.size_limits import invalid_reason
from airflow_provider_sewer.core.templates import is_template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The same program as a file, for command lines that are shown or started by a debugger.
CALLER_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "function_bootstrap.py")

with open(CALLER_FILE, encoding="utf-8") as _file:
    #: The program that calls a function, for any interpreter from 3.9 on.
    CALLER = _file.read()


class Call(NamedTuple):
    """Module or function for an interpreter to run.

    :param target: the module's name, or ``module:function``.
    :param argv: all arguments of the interpreter.
    :param kwargs: a function's keyword arguments as JSON, its last argument; ``None`` for a module.
    :param stdin: path of the file that it reads as its stdin; ``None`` for an empty one.
    :param stdout: path of the file that its stdout is written to; ``None`` for the log.
    """

    target: str
    argv: Tuple[str, ...]
    kwargs: Optional[str] = None
    stdin: Optional[str] = None
    stdout: Optional[str] = None

    def reading(self, file: str) -> Call:
        """Return the same call with a function's keyword arguments in a file, as it is started.

        In a file they may have any length, and are not on a command line, which all users can read.

        :param file: its absolute path; its content is :attr:`kwargs`, in UTF-8 with ``surrogateescape``.
        """
        return self if self.kwargs is None else self._replace(argv=(*self.argv[:-1], file))

    @property
    def module(self) -> str:
        """Return the name of the module that must be installed."""
        return self.target.partition(":")[0]

    @property
    def is_function(self) -> bool:
        """Return whether the call is that of a function."""
        return self.kwargs is not None


def module_call(module: str, arguments: Sequence[str]) -> Call:
    """Return the call of a module, as ``python -m`` runs it."""
    return Call(module, ("-m", module, *arguments))


def function_call(function: str, kwargs: Mapping[str, Any]) -> Call:
    """Return the call of a function with keyword arguments.

    :raises InvalidTask: when JSON cannot represent an argument.
    """
    text = _json(kwargs)
    return Call(function, ("-c", CALLER, function, text), text)


def checked_function(function: Any) -> str:
    """Return the name of a function as ``package.module:function``; templates pass.

    :raises InvalidTask: for any other value.
    """
    if is_template(function):
        return str(function)
    if isinstance(function, str):
        module, _, names = function.partition(":")
        if all(part.isidentifier() for part in [*module.split("."), *names.split(".")]):
            return function
    hint = "; decorate the function with @task instead" if callable(function) else ""
    message = f"function must be a name such as 'package.module:function', got {function!r:.200}{hint}"
    raise InvalidTask(message, at=("function",))


def checked_kwargs(kwargs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return keyword arguments as a dict.

    :raises InvalidTask: when a name is not an identifier.
    """
    for name in kwargs:
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidTask(f"kwargs: {name!r} is not a valid name of an argument", at=("kwargs", Key(name)))
    return dict(kwargs)


def _json(kwargs: Mapping[str, Any]) -> str:
    for name, value in kwargs.items():
        try:
            json.dumps(value, default=_path, allow_nan=False)
        except RecursionError:
            message = f"kwargs {name!r} contains itself, or is nested too deeply to be written as JSON"
            raise InvalidTask(message, at=("kwargs", name)) from None
        except (TypeError, ValueError) as error:
            message = f"kwargs {name!r}: arguments are passed as JSON, and {error}"
            raise InvalidTask(message, at=("kwargs", name)) from None
    text = json.dumps(kwargs, default=_path, ensure_ascii=False)
    if reason := invalid_reason(text, longest=None):
        raise InvalidTask(f"kwargs: their text {reason}", at=("kwargs",))
    return text


def _path(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")
