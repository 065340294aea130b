"""What an interpreter is asked to run: a module, or a function with keyword arguments and a result in JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.core.text import why_unfit

#: Calls a function in whatever interpreter from 3.9 up, which need not have this package: a module that imports it, for
#: ``@task`` and what stands in annotations, then finds a stub.
CALLER = """
def call():
    import importlib, importlib.util, inspect, json, os, sys, types

    class Stub(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return undecorated if name == "task" else type(name, (), {"__init__": lambda self, *_, **__: None})

    def undecorated(function=None, **_):
        return function if callable(function) else undecorated

    def plain(value):
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if type(value).__module__ == "numpy" and not getattr(value, "ndim", 1):
            return value.item()
        raise TypeError(
            f"{target} returned a {type(value).__name__}, which JSON cannot say; return text, numbers, lists and dicts "
            "of these, or write the value to a product"
        )

    target, kwargs = sys.argv[1], json.loads(sys.argv[2])
    del sys.argv[1:]
    if importlib.util.find_spec("airflow_provider_sewer") is None:
        sys.modules["airflow_provider_sewer"] = Stub("airflow_provider_sewer")
    module, _, names = target.partition(":")
    function = importlib.import_module(module)
    for name in names.split("."):
        function = getattr(function, name)
    result = getattr(function, "__sewer_function__", function)(**kwargs)
    if inspect.isawaitable(result):
        import asyncio

        async def awaited():
            return await result

        result = asyncio.run(awaited())
    text = json.dumps(result, default=plain, allow_nan=False)
    if "SEWER_RESULT_FILE" in os.environ:
        with open(os.environ["SEWER_RESULT_FILE"], "w", encoding="utf-8") as file:
            file.write(text)


call()
"""


class Call(NamedTuple):
    """What an interpreter is asked to run.

    :param target: the module's name, or ``module:function``.
    :param argv: the interpreter's arguments that make it run that.
    """

    target: str
    argv: tuple[str, ...]

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

    :raises InvalidTask: when JSON cannot say an argument, or they are too long for a command line.
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
    raise InvalidTask(f"function: {function!r} is no name such as 'package.module:function'{hint}")


def checked_kwargs(kwargs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return keyword arguments, or say which is none.

    :raises InvalidTask: when a name is no identifier.
    """
    for name in kwargs:
        if not isinstance(name, str) or not name.isidentifier():
            raise InvalidTask(f"kwargs: {name!r} is no name of an argument")
    return dict(kwargs)


def _json(kwargs: Mapping[str, Any]) -> str:
    for name, value in kwargs.items():
        try:
            text = json.dumps(value, default=_path, allow_nan=False)
        except RecursionError:
            raise InvalidTask(
                f"kwargs {name!r}: it holds itself, or is nested too deeply to be written as JSON"
            ) from None
        except (TypeError, ValueError) as error:
            raise InvalidTask(f"kwargs {name!r}: arguments are passed as JSON, and {error}") from None
        if why := why_unfit(text):
            raise InvalidTask(f"kwargs {name!r}: the text {why}")
    text = json.dumps(kwargs, default=_path, ensure_ascii=False)
    if why := why_unfit(text):
        raise InvalidTask(f"kwargs: their text {why}")
    return text


def _path(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be said in it")
