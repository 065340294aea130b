"""Description of a task for its program in a pod: its values as JSON, with placeholders for the values that Argo has.

An object with a single key that starts with ``$`` is a placeholder:

==============  ========================================================================================
``$result``     a part of an input: its name, whether a loop made it, the path of the part, a name to show
``$argument``   a part of an argument of the workflow: its name, whether it is text, the path of the part
``$text``       a text that is put together from its items
``$path``       a path in which names in braces stand for the value of a mapped task
``$product``    a product that the task writes to a staging path: its path
``$row``        that value
``$object``     an object of the user whose only key starts with ``$``
==============  ========================================================================================
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.paths import PathMarker, Product
from airflow_provider_sewer.core.placeholders import Ignored, Result, RuntimeValue, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_sewer.core.task import Task

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


class Reference(NamedTuple):
    """Place of a result in an Argo workflow.

    :param task: name of the task in the manifest.
    :param path: keys and positions of the part in its result.
    :param is_loop: whether it is a loop, whose result is the list of the results of its instances.
    """

    task: str
    path: tuple[str | int, ...]
    is_loop: bool


class Values:
    """Encoder of the values of one task; it notes the results that they use.

    :param refer: returns the place of a result.
    :param text_arguments: names of the workflow's arguments that are text; others are JSON.
    :param mapped_key: name of the parameter that is mapped over a result; empty for none.
    """

    def __init__(self, refer: Callable[[Result], Reference], text_arguments: frozenset[str], mapped_key: str) -> None:
        self._refer = refer
        self._text_arguments = text_arguments
        self._mapped_key = mapped_key
        self.inputs: dict[str, str] = {}  # the input parameter, by the name of the task that it comes from
        self.arguments: set[str] = set()

    def of(self, task: Task) -> dict[str, Any]:
        """Return the values of the arguments of a task."""
        parameters, kwargs = dict(task.parameters_and_flags), dict(task.kwargs)
        if self._mapped_key:
            (parameters if task.function is None else kwargs)[self._mapped_key] = _ROW
        return {
            "parameters": {key: self.encoded(value) for key, value in parameters.items()},
            "args": [self.encoded(value) for value in task.args],
            "kwargs": {key: self.encoded(value) for key, value in kwargs.items()},
            "stdin": self.encoded(task.stdin),
            "stdout": self.encoded(task.stdout),
        }

    def encoded(self, value: Any) -> Any:
        """Return a value as JSON data with placeholders."""
        if value is _ROW:
            return {"$row": self._mapped_key}
        if isinstance(value, Ignored):
            return self.encoded(value.value)
        if isinstance(value, Result):
            return self._result(value)
        if isinstance(value, RuntimeValue):
            return self._argument(value)
        if isinstance(value, PathMarker):
            path = self.path(value)
            return {"$product": path} if isinstance(value, Product) and value.atomic else path
        if isinstance(value, Mapping):
            data = {str(key): self.encoded(item) for key, item in value.items()}
            return {"$object": data} if next(iter(data), "").startswith("$") else data
        if isinstance(value, (list, tuple)):
            return [self.encoded(item) for item in value]
        return self._plain(value)

    def path(self, marker: PathMarker) -> Any:
        """Return the path of a marker as JSON data with placeholders."""
        path = self.encoded(marker.path)
        return {"$path": path} if self._mapped_key else path

    def _plain(self, value: Any) -> Any:
        if isinstance(value, os.PathLike):
            value = os.fsdecode(value)
        if isinstance(value, str):
            parts = parts_of(value)
            return value if parts == [value] or not parts else {"$text": [self.encoded(each) for each in parts]}
        is_number = isinstance(value, (int, float)) and math.isfinite(value)
        return value if value is None or isinstance(value, bool) or is_number else str(value)

    def _result(self, result: Result) -> dict[str, Any]:
        task, path, is_loop = self._refer(result)
        name = self.inputs.setdefault(task, f"result-of-{task}")
        return {"$result": {"input": name, "is_loop": is_loop, "path": list(path), "name": repr(result)}}

    def _argument(self, value: RuntimeValue) -> dict[str, Any]:
        self.arguments.add(value.stands_for)
        is_text = value.stands_for in self._text_arguments
        return {"$argument": {"name": value.stands_for, "is_text": is_text, "path": list(value.key_path)}}


class _Row:
    """The value of one instance of a task that is mapped over a result."""


_ROW = _Row()


def to_json_without_names(data: Any) -> str:
    """Return data as JSON in which Argo finds no names in double braces to replace."""
    return _QUOTED.sub(lambda found: found[0].replace("{", "\\u007b"), json.dumps(data, ensure_ascii=False, indent=1))
