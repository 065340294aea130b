"""What an interpreter is asked to run: a module, or a function with keyword arguments and a result in JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.process_text import invalid_reason
from airflow_provider_sewer.core.templates import is_template

with open(os.path.join(os.path.dirname(__file__), "function_bootstrap.py"), encoding="utf-8") as _file:
    #: What calls a function: the text of a program, for any interpreter from 3.9 up.
    CALLER = _file.read()


class Call(NamedTuple):
    """What an interpreter is asked to run.

    :param target: the module's name, or ``module:function``.
    :param argv: the interpreter's arguments that make it run that; all it needs is in them.
    """

    target: str
    argv: tuple[str, ...]

    @property
    def kwargs(self) -> str | None:
        """Return a function's keyword arguments as JSON; ``None`` of a module."""
        return self.argv[-1] if self.is_function else None

    def reading(self, file: str) -> Call:
        """Return the same call as it is started: a function's keyword arguments are in a file.

        There they may be of any length, and none of them stands on a command line, which everybody can see.

        :param file: its absolute path; in it is :attr:`kwargs`, in UTF-8 with ``surrogateescape``.
        """
        return self._replace(argv=(*self.argv[:-1], file)) if self.is_function else self

    @property
    def module(self) -> str:
        """Return the name of the module that has to be there."""
        return self.target.partition(":")[0]

    @property
    def is_function(self) -> bool:
        """Tell whether it is a function of the module that is called."""
        return ":" in self.target


def module_call(module: str, arguments: Sequence[str]) -> Call:
    """Run a module as ``python -m`` does."""
    return Call(module, ("-m", module, *arguments))


def function_call(function: str, kwargs: Mapping[str, Any]) -> Call:
    """Call a function with keyword arguments.

    :raises InvalidTask: when JSON cannot say an argument.
    """
    return Call(function, ("-c", CALLER, function, _json(kwargs)))


def checked_function(function: Any) -> str:
    """Return the name of a function as ``package.module:function``; templates pass.

    :raises InvalidTask: for anything that is no such name.
    """
    if is_template(function):
        return str(function)
    if isinstance(function, str):
        module, _, names = function.partition(":")
        if all(part.isidentifier() for part in [*module.split("."), *names.split(".")]):
            return function
    hint = "; a function itself is given with @task" if callable(function) else ""
    raise InvalidTask(f"function: {function!r} is no name such as 'package.module:function'{hint}", at=("function",))


def checked_kwargs(kwargs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return keyword arguments, or say which is none.

    :raises InvalidTask: when a name is no identifier.
    """
    for name in kwargs:
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidTask(f"kwargs: {name!r} is no name of an argument", at=("kwargs", Key(name)))
    return dict(kwargs)


def _json(kwargs: Mapping[str, Any]) -> str:
    for name, value in kwargs.items():
        try:
            json.dumps(value, default=_path, allow_nan=False)
        except RecursionError:
            said = f"kwargs {name!r}: it holds itself, or is nested too deeply to be written as JSON"
            raise InvalidTask(said, at=("kwargs", name)) from None
        except (TypeError, ValueError) as error:
            said = f"kwargs {name!r}: arguments are passed as JSON, and {error}"
            raise InvalidTask(said, at=("kwargs", name)) from None
    text = json.dumps(kwargs, default=_path, ensure_ascii=False)
    if why := invalid_reason(text, longest=None):
        raise InvalidTask(f"kwargs: their text {why}", at=("kwargs",))
    return text


def _path(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be said in it")
