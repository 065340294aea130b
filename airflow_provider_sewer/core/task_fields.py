"""Fields of a task and their checks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

from airflow_provider_sewer.core.call import checked_function
from airflow_provider_sewer.core.errors import InvalidTask, Key
from airflow_provider_sewer.core.paths import PathMarker, Product, path_key
from airflow_provider_sewer.core.placeholders import Result, as_text, names_in
from airflow_provider_sewer.core.size_limits import bounded_list
from airflow_provider_sewer.core.templates import is_template

_Marker = TypeVar("_Marker", bound=PathMarker)

#: The fields of a task.
FIELDS = (
    "name", "module", "parameters_and_flags", "use_underscores", "args", "function", "kwargs", "python", "env",
    "inherit_env", "workdir", "depends_on", "products", "dependencies", "stdin", "stdout", "run_when", "compare",
    "stale_with", "resources", "tags", "group", "doc", "operator_kwargs", "run_on", "slurm", "retry_with",
)  # fmt: skip

#: Where Airflow can run a task: on the worker, or as a Slurm job.
RUN_ON = ("local", "slurm")

#: A tag contains no operators of selectors.
_TAG = re.compile(r"[^\s,+@*?\[\]]+")


def checked_name(name: Any) -> str:
    """Return a task's name.

    :raises InvalidTask: for an empty name, or one that does not fit on a line.
    """
    if not isinstance(name, str) or not name.strip():
        raise InvalidTask(f"name must be non-empty text, got {name!r:.200}")
    if not name.isprintable():
        raise InvalidTask(f"name must not contain a line break or another unprintable character, got {name!r}")
    if later := names_in(name):
        raise InvalidTask(f"name must be the same in all runs; {later[0]!r} is known only when the task runs")
    return name


def checked_module(module: Any) -> str:
    """Return a module's dotted name; templates pass.

    :raises InvalidTask: for a name that ``python -m`` would reject.
    """
    if not isinstance(module, str):
        raise InvalidTask(f"module must be a dotted name such as 'package.module', got {module!r:.200}", at=("module",))
    is_file = module.endswith(".py") or "/" in module
    if is_template(module) or (all(map(str.isidentifier, module.split("."))) and not is_file):
        return module
    guess = re.sub(r"\.py$", "", module).strip("./").replace("/", ".")
    hint = f"; a file cannot be run, only an installed module: {guess!r}?" if is_file else ""
    message = f"module must be a dotted name such as 'package.module', got {module!r:.200}{hint}"
    raise InvalidTask(message, at=("module",))


def checked_run_on(run_on: Any) -> str | None:
    """Return where a task is to run, or ``None`` if it was not given.

    :raises InvalidTask: for any other value.
    """
    if run_on is not None and run_on not in RUN_ON:
        raise InvalidTask(f"run_on must be {' or '.join(map(repr, RUN_ON))}, got {run_on!r:.200}", at=("run_on",))
    return run_on  # type: ignore[no-any-return]  # one of the values, which are text


def checked_target(module: Any, function: Any) -> tuple[str | None, str | None]:
    """Return the names of a module and of a function, exactly one of which must be given; templates pass.

    :raises InvalidTask: when both or neither are given, or a name is not valid.
    """
    module, function = as_text(module), as_text(function)
    if (module is None) == (function is None):
        found = "neither" if module is None else "both"
        raise InvalidTask(f"a task must have either a module or a function, got {found}", at=(Key("function"),))
    return (checked_module(module), None) if function is None else (None, checked_function(function))


def checked_paths(field: str, paths: Any, kind: type[Any]) -> list[Any]:
    """Return the paths of a field as markers.

    :param kind: their type.
    :raises InvalidTask: when there is another value, naming the field.
    """
    if type(paths) in (tuple, list) and not paths:
        return []
    is_one = isinstance(paths, (str, bytes, os.PathLike)) or not isinstance(paths, Iterable)
    several = [paths] if is_one else paths
    if isinstance(several, (Mapping, AbstractSet)):
        raise InvalidTask(f"{field} must be a list of paths, got {paths!r:.200}", at=(field,))
    listed = []
    for index, path in enumerate(bounded_list(field, several)):
        if isinstance(path, PathMarker) and not isinstance(path, kind):
            raise InvalidTask(f"{field} must not contain {path!r}", at=(field, index))
        try:
            listed.append(path if isinstance(path, kind) else kind(path))
        except InvalidTask as error:
            raise InvalidTask(str(error), at=(field, index)) from None
    return listed


def checked_stream(field: str, path: Any, kind: type[_Marker]) -> _Marker | None:
    """Return the path of the file of ``stdin`` or ``stdout`` as a marker, or ``None`` if it was not given.

    :param kind: the marker's type.
    :raises InvalidTask: for any other value, naming the field.
    """
    if path is None:
        return None
    if isinstance(path, PathMarker) and not isinstance(path, kind):
        raise InvalidTask(f"{field} must be a {kind.__name__}, got {path!r}", at=(field,))
    try:
        marker = path if isinstance(path, kind) else kind(path)
    except InvalidTask as error:
        raise InvalidTask(f"{field}: {error}", at=(field,)) from None
    if marker.path.endswith("/"):
        raise InvalidTask(f"{field} must be a file, got the directory {marker.path!r}", at=(field,))
    return marker


def reject_shared_stdout(stdout: PathMarker | None, others: Iterable[Any]) -> None:
    """Reject a file of ``stdout`` that the task also has in another field.

    :param others: markers in its other fields.
    :raises InvalidTask: naming the path.
    """
    if stdout is None:
        return
    key = path_key(stdout.path, None)
    for other in others:
        if isinstance(other, PathMarker) and path_key(other.path, None) == key:
            use = "a product" if isinstance(other, Product) else "a dependency"
            message = f"stdout must be a file of its own, but {other.path!r} is also {use} of the task; remove one"
            raise InvalidTask(message, at=("stdout",))


def checked_mapping(field: str, value: Any) -> Mapping[str, Any]:
    """Return the value of a field that is a mapping; ``None`` is an empty one.

    :raises InvalidTask: for any other value, naming the field.
    """
    if value is None or type(value) is dict:
        return value or {}
    if not isinstance(value, Mapping):
        raise InvalidTask(f"{field} must be a mapping, got {type(value).__name__}", at=(field,))
    return value


def checked_string(field: str, value: Any) -> str:
    """Return the value of a field that is text.

    :raises InvalidTask: for any other value, naming the field.
    """
    if not isinstance(value, str):
        raise InvalidTask(f"{field} must be text, got {type(value).__name__}", at=(field,))
    return value


def checked_args(args: Any) -> tuple[Any, ...]:
    """Return the verbatim arguments of a module.

    :raises InvalidTask: for anything but a list of limited length.
    """
    if type(args) in (tuple, list):
        return tuple(args)
    if isinstance(args, (str, bytes, Mapping, AbstractSet, Result)) or not isinstance(args, Iterable):
        raise InvalidTask(f"args must be a list of arguments, got {args!r:.200}", at=("args",))
    return tuple(bounded_list("args", args))


def checked_tags(tags: Any) -> tuple[str, ...]:
    """Return tags without duplicates.

    :raises InvalidTask: for anything but words.
    """
    several = [tags] if isinstance(tags, str) else tags
    if not isinstance(several, Iterable) or isinstance(several, (bytes, Mapping, AbstractSet)):
        raise InvalidTask(f"tags must be a list of tags, got {tags!r:.200}", at=("tags",))
    given = bounded_list("tags", several)
    for index, tag in enumerate(given):
        if not isinstance(tag, str) or not tag.isprintable() or not _TAG.fullmatch(tag):
            message = f"tags must be words without spaces and , + @ * ? [ ], got {tag!r}"
            raise InvalidTask(message, at=("tags", index))
    return tuple(dict.fromkeys(given))
