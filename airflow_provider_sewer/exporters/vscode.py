"""Tasks → debug configurations in the ``launch.json`` of VS Code."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.secret_detection import as_variable, masked_env, masked_words, secret_texts
from airflow_provider_sewer.exporters.json_text import to_json_text
from airflow_provider_sewer.exporters.jsonc import Value, fail, parse
from airflow_provider_sewer.exporters.jsonc_edit import Edit, appended, applied, replaced, style_of
from airflow_provider_sewer.exporters.text_files import read_text, replace_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_sewer.core.task import Task

#: The version of the format that VS Code writes itself.
VERSION = "0.2.0"

#: The types a configuration of a Python module has or used to have.
_DEBUGGERS = ("debugpy", "python", None)

#: What a task says. Where it says nothing, what an earlier conversion wrote is taken out.
_OURS = frozenset({"name", "type", "request", "module", "code", "args", "console", "python", "cwd", "env"})

_VARIABLE = re.compile(r"\$\{env:(\w+)\}")
_BYTE_ORDER_MARK = "\ufeff"
_WHITE_SPACE = " \t\r\n"


def launch_configuration(task: Task) -> dict[str, Any]:
    """Return the debug configuration of a task: what it is run with, under the debugger.

    The environment is what the task itself gives; VS Code adds it to its own. ``${env:NAME}`` stands for a secret,
    which VS Code takes from the environment that it was started in. Where an argument holds ``${…}``, VS Code fills in
    its own variables.
    """
    settings = task.settings
    configuration: dict[str, Any] = {
        "name": task.name,
        "type": "debugpy",
        "request": "launch",
        **_what_is_run(task),
        "console": "integratedTerminal",
    }
    # VS Code does not know "~".
    if settings.python is not None:
        configuration["python"] = os.path.expanduser(settings.python)
    if settings.workdir is not None:
        configuration["cwd"] = os.path.expanduser(settings.workdir)
    if settings.env:
        configuration["env"] = masked_env(settings.env, as_variable)
    return configuration


def _what_is_run(task: Task) -> dict[str, Any]:
    option, what, *arguments = task.call().argv
    shown = masked_words(arguments, Secrets(secret_texts(task.settings.env)), as_variable)
    return {"module" if option == "-m" else "code": what, "args": shown}


def variables_needed(tasks: Iterable[Task]) -> list[str]:
    """Return the variables that the debug configurations take from the environment of VS Code."""
    texts = json.dumps([launch_configuration(task) for task in tasks])
    return list(dict.fromkeys(_VARIABLE.findall(texts)))


def launch_json(tasks: Iterable[Task], version: str = VERSION) -> str:
    """Write a fresh ``launch.json`` with a configuration for each task.

    :raises SewerError: when two tasks have one name.
    """
    return _fresh(_configurations(tasks), version)


def merged_launch_json(existing: str, tasks: Iterable[Task], version: str = VERSION) -> str:
    """Write the tasks into the text of an existing ``launch.json``.

    A configuration with the name of a task is brought up to date where it stands, and keeps what a person
    has added to it; the other tasks are added at the end. Everything else, down to comments and line
    ends, stays as it is.

    :param version: written only where the text names none.
    :raises SewerError: when two tasks have one name, or the text cannot be read as a ``launch.json``; then
        with line and column.
    """
    return _merged(existing, _configurations(tasks), version)


def write_launch_json(path: str | os.PathLike[str], tasks: Iterable[Task], version: str = VERSION) -> None:
    """Write the tasks into a ``launch.json``, which is made if there is none.

    A symbolic link is followed. A file that has nothing to change is not written.

    :raises SewerError: when two tasks have one name, or the file cannot be read, understood or written; it
        is then what it was.
    """
    wanted = _configurations(tasks)
    existing = read_text(path)
    try:
        text = _fresh(wanted, version) if existing is None else _merged(existing, wanted, version)
    except SewerError as error:
        raise SewerError(f"{os.fspath(path)}:{error}") from None
    if text != existing:
        replace_text(path, text)


def _configurations(tasks: Iterable[Task]) -> dict[str, dict[str, Any]]:
    named: dict[str, Task] = {}
    for task in tasks:
        other = named.setdefault(task.name, task)
        if other is not task:
            raise SewerError(f"two tasks are named {task.name!r}; the other one is at {other.source}", task.source)
    return {name: launch_configuration(task) for name, task in named.items()}


def _fresh(wanted: Mapping[str, dict[str, Any]], version: str) -> str:
    return to_json_text({"version": version, "configurations": list(wanted.values())}) + "\n"


def _merged(existing: str, wanted: Mapping[str, dict[str, Any]], version: str) -> str:
    text = existing.removeprefix(_BYTE_ORDER_MARK)
    mark = existing.removesuffix(text)
    if not text.strip(_WHITE_SPACE):
        return mark + _fresh(wanted, version)
    try:
        return mark + applied(text, _edits(text, wanted, version))
    except SewerError as error:
        raise SewerError(f"{error}; the file was left alone") from None


def _edits(text: str, wanted: Mapping[str, dict[str, Any]], version: str) -> list[Edit]:
    """Find what has to change in the text for the tasks to be in it."""
    root = parse(text)
    if not isinstance(root.data, dict):
        fail(text, root.start, "the top level of a launch.json is an object: { … }")
    style = style_of(text, root)
    edits: list[Edit] = []
    missing: list[str] = []
    if "version" not in root.members:
        missing.append(f'"version": {to_json_text(version)}')
    if array := root.members.get("configurations"):
        if not isinstance(array.data, list):
            fail(text, array.start, '"configurations" is an array: [ … ]')
        present = _by_name(text, array, wanted)
        updated = {name: {**wanted[name], **_kept(element)} for name, element in present.items()}
        edits += [
            replaced(text, element, updated[name], style)
            for name, element in present.items()
            if element.data != updated[name]
        ]
        added = [to_json_text(wanted[name], style.indent) for name in wanted if name not in present]
        edits += appended(text, array, added, style)
    else:
        missing.append(f'"configurations": {to_json_text(list(wanted.values()), style.indent)}')
    return [*edits, *appended(text, root, missing, style)]


def _kept(configuration: Value) -> dict[str, Any]:
    """Return what a person has added to a configuration, such as ``justMyCode``."""
    return {key: value for key, value in configuration.data.items() if key not in _OURS}


def _by_name(text: str, array: Value, wanted: Mapping[str, object]) -> dict[str, Value]:
    """Find the configurations that have the name of a task."""
    found: dict[str, Value] = {}
    for element in array.elements:
        name = element.members["name"].data if "name" in element.members else None
        if not isinstance(name, str) or name not in wanted:
            continue
        kind = element.data.get("type")
        if kind not in _DEBUGGERS:
            fail(text, element.start, f"a configuration of type {kind!r} is named {name!r}, as a task is; rename one")
        if name in found:
            fail(text, element.start, f"a second configuration is named {name!r}, as a task is; rename or remove one")
        found[name] = element
    return found
