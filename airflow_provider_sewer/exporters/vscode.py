"""Exporter of tasks to debug configurations in the ``launch.json`` of VS Code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.call import CALLER_FILE
from airflow_provider_sewer.core.errors import InvalidTask, SewerError
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.placeholders import Result, as_written
from airflow_provider_sewer.core.secret_detection import as_variable, masked_env, masked_words
from airflow_provider_sewer.execution.preflight import reject_templates_in
from airflow_provider_sewer.exporters.json_text import to_json_text
from airflow_provider_sewer.exporters.jsonc import Value, fail, parse
from airflow_provider_sewer.exporters.jsonc_edit import Edit, appended, applied, replaced, style_of
from airflow_provider_sewer.exporters.text_files import read_text, replace_text

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from airflow_provider_sewer.core.call import Call
    from airflow_provider_sewer.core.placeholders import Marker
    from airflow_provider_sewer.core.task import Task

#: Format version that VS Code writes.
VERSION = "0.2.0"

#: Current and former types of Python debug configurations.
_DEBUGGERS = ("debugpy", "python", None)

#: Keys that are set from a task. A key that the task does not set is removed.
_TASK_KEYS = frozenset({
    "name", "type", "request", "module", "program", "code", "args", "console", "python", "cwd", "env",
})  # fmt: skip

_WORKSPACE = "${workspaceFolder}"
_VARIABLE = re.compile(r"\$\{env:(\w+)\}")

#: Words that VS Code writes to its terminal without quotes, so that the shell there changes them.
_UNQUOTED = re.compile(r"[<>]|~.*|.*[\x00-\x1f\x7f].*", re.DOTALL)
_BYTE_ORDER_MARK = "\ufeff"
_WHITE_SPACE = " \t\r\n"


class DebugContext(NamedTuple):
    """Values that debug configurations depend on, besides their tasks.

    :param workspace: the folder that VS Code opens; paths in it are relative to ``${workspaceFolder}``.
    :param results: results that earlier runs saved, by task name.
    """

    workspace: str = ""
    results: Mapping[str, Any] = {}


_ANYWHERE = DebugContext()


def reason_against(task: Task, results: Mapping[str, Any]) -> str | None:
    """Return why a task cannot be debugged; ``None`` if it can.

    :param results: results that earlier runs saved, by task name.
    """
    try:
        reject_templates_in(task)
    except InvalidTask as error:
        return str(error)
    for result in task.results:
        problem = _unsaved(result, results)
        if problem is not None:
            return f"{task.source}: task {task.name!r}: {problem}"
    call = _call(task, results)
    if call.stdin is None:
        return None
    changed = [word for word in (*_arguments(call), os.path.expanduser(call.stdin)) if _UNQUOTED.fullmatch(word)]
    words = masked_words(changed, Secrets(task.known_secrets()), as_variable)
    return (
        f"{task.source}: task {task.name!r}: the terminal of VS Code, which stdin requires, changes {words[0]!r}"
        if words
        else None
    )


def _call(task: Task, results: Mapping[str, Any]) -> Call:
    def filled(marker: Marker) -> Any:
        return marker.resolve(results[marker.task.name]) if isinstance(marker, Result) else as_written(marker)

    return task.call(filled)


def _arguments(call: Call) -> list[str]:
    """Return the arguments of the module, or of the program that calls the function."""
    return list(call.argv[2:])


def _unsaved(result: Result, results: Mapping[str, Any]) -> str | None:
    if result.task.name not in results:
        return f"no earlier run saved {result!r}; run {result.task.name!r} first"
    try:
        result.resolve(results[result.task.name])
    except InvalidTask as error:
        return str(error)
    return None


def launch_configuration(task: Task, context: DebugContext = _ANYWHERE) -> dict[str, Any]:
    """Return the debug configuration of a task for which :func:`reason_against` has none.

    ``env`` has only the variables of the task; VS Code adds them to its own environment. A secret is replaced with
    ``${env:NAME}``, which VS Code reads from the environment it was started in. VS Code also expands other ``${…}`` in
    arguments. In its terminal, ``<`` redirects stdin. Stdout is shown there instead of written to its product. A task
    with an argument that the shell of the terminal would change is run without that shell.
    """
    settings = task.settings
    call = _call(task, context.results)
    configuration: dict[str, Any] = {
        "name": task.name,
        "type": "debugpy",
        "request": "launch",
        **_target(task, call, context),
        "console": "internalConsole" if any(map(_UNQUOTED.fullmatch, _arguments(call))) else "integratedTerminal",
    }
    # VS Code does not expand "~".
    if settings.python is not None:
        configuration["python"] = _in_workspace(os.path.expanduser(settings.python), context)
    workdir = os.path.expanduser(settings.workdir) if settings.workdir is not None else os.getcwd()
    if settings.workdir is not None or (context.workspace and workdir != context.workspace):
        configuration["cwd"] = _in_workspace(workdir, context)
    if settings.env:
        configuration["env"] = masked_env(settings.env, as_variable, task.known_secrets())
    return configuration


def _target(task: Task, call: Call, context: DebugContext) -> dict[str, Any]:
    target = _in_workspace(CALLER_FILE, context) if call.is_function else call.target
    arguments = _arguments(call)
    if call.stdin is not None:
        arguments += ["<", os.path.expanduser(call.stdin)]
    shown = masked_words(arguments, Secrets(task.known_secrets()), as_variable)
    return {"program" if call.is_function else "module": target, "args": shown}


def _in_workspace(path: str, context: DebugContext) -> str:
    """Return a path relative to the folder that VS Code opens, if it is in it; a bare name stays."""
    workspace = context.workspace
    if not workspace or os.sep not in path:
        return path
    absolute = os.path.abspath(path)
    if absolute == workspace:
        return _WORKSPACE
    is_inside = absolute.startswith(workspace.rstrip(os.sep) + os.sep)
    return f"{_WORKSPACE}/{os.path.relpath(absolute, workspace)}" if is_inside else path


def variables_needed(tasks: Iterable[Task], context: DebugContext = _ANYWHERE) -> list[str]:
    """Return the variables that the debug configurations take from the environment of VS Code."""
    texts = json.dumps([launch_configuration(task, context) for task in tasks])
    return list(dict.fromkeys(_VARIABLE.findall(texts)))


def launch_json(tasks: Iterable[Task], version: str = VERSION, context: DebugContext = _ANYWHERE) -> str:
    """Return a new ``launch.json`` with a configuration for each task.

    :raises SewerError: when two tasks have the same name.
    """
    return _new_text(_configurations(tasks, context), version)


def merged_launch_json(
    existing: str, tasks: Iterable[Task], version: str = VERSION, context: DebugContext = _ANYWHERE
) -> str:
    """Merge tasks into the text of an existing ``launch.json``.

    A configuration with the name of a task is updated in place and keeps keys added by the user; other tasks are
    appended. All other text, including comments and line ends, is unchanged.

    :param version: added only if the text has no version.
    :raises SewerError: when two tasks have the same name, or the text is not a valid ``launch.json``; then
        with line and column.
    """
    return _merged(existing, _configurations(tasks, context), version)


def write_launch_json(
    path: str | os.PathLike[str], tasks: Iterable[Task], version: str = VERSION, context: DebugContext = _ANYWHERE
) -> None:
    """Merge tasks into a ``launch.json``, which is created if missing.

    A symbolic link is followed. A file without changes is not written.

    :raises SewerError: when two tasks have the same name, or the file cannot be read, parsed or written; the file is
        then unchanged.
    """
    configurations = _configurations(tasks, context)
    existing = read_text(path)
    try:
        text = _new_text(configurations, version) if existing is None else _merged(existing, configurations, version)
    except SewerError as error:
        raise SewerError(f"{os.fspath(path)}:{error}") from None
    if text != existing:
        replace_text(path, text)


def _configurations(tasks: Iterable[Task], context: DebugContext) -> dict[str, dict[str, Any]]:
    named: dict[str, Task] = {}
    for task in tasks:
        other = named.setdefault(task.name, task)
        if other is not task:
            raise SewerError(f"two tasks are named {task.name!r}; the other one is at {other.source}", task.source)
    return {name: launch_configuration(task, context) for name, task in named.items()}


def _new_text(configurations: Mapping[str, dict[str, Any]], version: str) -> str:
    return to_json_text({"version": version, "configurations": list(configurations.values())}) + "\n"


def _merged(existing: str, configurations: Mapping[str, dict[str, Any]], version: str) -> str:
    text = existing.removeprefix(_BYTE_ORDER_MARK)
    mark = existing.removesuffix(text)
    if not text.strip(_WHITE_SPACE):
        return mark + _new_text(configurations, version)
    try:
        return mark + applied(text, _edits(text, configurations, version))
    except SewerError as error:
        raise SewerError(f"{error}; the file is unchanged") from None


def _edits(text: str, configurations: Mapping[str, dict[str, Any]], version: str) -> list[Edit]:
    """Return the edits that merge the configurations into the text."""
    root = parse(text)
    if not isinstance(root.data, dict):
        fail(text, root.start, "the top level of launch.json must be an object: { … }")
    style = style_of(text, root)
    edits: list[Edit] = []
    missing: list[str] = []
    if "version" not in root.members:
        missing.append(f'"version": {to_json_text(version)}')
    if array := root.members.get("configurations"):
        if not isinstance(array.data, list):
            fail(text, array.start, '"configurations" must be an array: [ … ]')
        present = _by_name(text, array, configurations)
        updated = {name: {**configurations[name], **_user_keys(element)} for name, element in present.items()}
        edits += [
            replaced(text, element, updated[name], style)
            for name, element in present.items()
            if element.data != updated[name]
        ]
        added = [to_json_text(configurations[name], style.indent) for name in configurations if name not in present]
        edits += appended(text, array, added, style)
    else:
        missing.append(f'"configurations": {to_json_text(list(configurations.values()), style.indent)}')
    return [*edits, *appended(text, root, missing, style)]


def _user_keys(configuration: Value) -> dict[str, Any]:
    """Return the keys added by the user, such as ``justMyCode``."""
    return {key: value for key, value in configuration.data.items() if key not in _TASK_KEYS}


def _by_name(text: str, array: Value, names: Container[str]) -> dict[str, Value]:
    """Return the configurations that have the name of a task."""
    found: dict[str, Value] = {}
    for element in array.elements:
        name = element.members["name"].data if "name" in element.members else None
        if not isinstance(name, str) or name not in names:
            continue
        kind = element.data.get("type")
        if kind not in _DEBUGGERS:
            fail(text, element.start, f"configuration of type {kind!r} has the name of task {name!r}; rename one")
        if name in found:
            fail(text, element.start, f"second configuration with the name of task {name!r}; rename or remove one")
        found[name] = element
    return found
