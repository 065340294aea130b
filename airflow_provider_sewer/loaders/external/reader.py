"""Loading of a workflow file with another interpreter, which has the packages that the file imports.

That interpreter imports this package by its path alone: nothing is installed there, and packages installed next to this
one cannot be imported. The file is loaded in the environment of its tasks: the short list of inherited variables, and
``env``. The workflow is returned as JSON. It is cached (see :mod:`airflow_provider_sewer.execution.disk_cache`)
unless it contains secrets.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import cache
from textwrap import indent
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.command import Command
from airflow_provider_sewer.core.environment import PART_OF_MACHINE, build_environment
from airflow_provider_sewer.core.errors import InterpreterError, WorkflowFileError
from airflow_provider_sewer.core.secret_detection import secret_texts
from airflow_provider_sewer.core.serialization import (
    FORMAT,
    error_of_data,
    tasks_of_data,
    value_to_data,
    workflow_of_data,
)
from airflow_provider_sewer.core.source import EXTERNAL_NAME, PACKAGE, SourceLine
from airflow_provider_sewer.execution.activation import activated
from airflow_provider_sewer.execution.disk_cache import DiskCache
from airflow_provider_sewer.execution.interpreter import find_interpreter, locate_interpreter
from airflow_provider_sewer.execution.module_errors import exit_description
from airflow_provider_sewer.execution.orphan_reaper import OrphanReaper
from airflow_provider_sewer.execution.output import Stream, Tail
from airflow_provider_sewer.execution.process import GRACE, Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow

#: Timeout in seconds for loading a file.
_TIMEOUT = 120.0

#: Oldest Python that can import this package's core and loaders.
_OLDEST = (3, 9)

#: Suffixes of files that are not Python.
_STAGES = (".yaml", ".yml")

_NAME = __name__.partition(".")[0]

# With -c, Python puts the working directory first on sys.path. A workflow file must find the same modules in any
# working directory, so it is removed. The parent folder of this package may contain other packages, so it is not added.
_BOOTSTRAP = f"""
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
import importlib.util
name, folder = sys.argv[1:3]
spec = importlib.util.spec_from_file_location(name, folder + "/__init__.py", submodule_search_locations=[folder])
spec.loader_state = {EXTERNAL_NAME!r}
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])
importlib.import_module(name + ".loaders.external.worker").main(*sys.argv[3:])
"""


class _Request(NamedTuple):
    """Request to load a file.

    :param kind: ``workflow``, or ``tasks`` for all tasks of the file.
    :param file: absolute path of the workflow file.
    :param name: name of the workflow, if given.
    :param arguments: arguments of its function as JSON data.
    """

    kind: str
    file: str
    name: str | None = None
    arguments: Any = None


def read_workflow(
    path: str | os.PathLike[str],
    workflow: str | None,
    settings: ExecutionSettings,
    arguments: Mapping[str, Any] | None = None,
) -> Workflow:
    """Load a workflow file with another interpreter, and return one of its workflows as a graph.

    :param path: workflow file.
    :param workflow: its name, if the file defines several.
    :param settings: interpreter and environment for loading the file.
    :param arguments: arguments of the workflow function by parameter name.
    :raises SewerError: when loading the file raises it there.
    :raises InterpreterError: when the interpreter cannot load a workflow file.
    """
    request = _Request("workflow", os.path.abspath(path), workflow, value_to_data("arguments", arguments or {}))
    return workflow_of_data(_read(request, settings))


def read_tasks(path: str | os.PathLike[str], settings: ExecutionSettings) -> list[Task]:
    """Load a workflow file with another interpreter, and return all its tasks.

    :param path: workflow file.
    :param settings: interpreter and environment for loading the file.
    :raises SewerError: as for :func:`read_workflow`.
    """
    return tasks_of_data(_read(_Request("tasks", os.path.abspath(path)), settings))


def _read(request: _Request, settings: ExecutionSettings) -> Any:
    """Return the cached data of a request, or load the file."""
    if request.file.lower().endswith(_STAGES):
        raise WorkflowFileError(
            "stages in YAML have no imports and need no other interpreter; leave out "
            "--read-with-interpreter, or read_with_interpreter=True",
            SourceLine(request.file, 0),
        )
    env = build_environment(settings.env, settings.inherit_env or False)
    for name in PART_OF_MACHINE - settings.env.keys():  # loading must not depend on the machine
        env.pop(name, None)
    python = locate_interpreter(settings.python)
    env = activated(env, python, settings)
    place = [os.path.realpath(request.file), _working_directory()]
    key = [request._asdict(), place, sorted(env.items()), python, _identity(python), _version()]
    cache_entry = DiskCache("workflows", key)
    data = cache_entry.get()
    if data is None:
        response = _load(request, python, env)
        if "error" in response:
            raise error_of_data(response["error"])
        data = response[request.kind]
        if response["fingerprints"] is not None and not secret_texts({}, [data, request.arguments]):
            cache_entry.put(data, response["fingerprints"])
    return data


def _load(request: _Request, python: str, env: Mapping[str, str]) -> Any:
    """Run the worker with the interpreter, and return its response."""
    tail = Tail()

    def show(_: Stream, pieces: Sequence[str]) -> None:
        tail.take(pieces)
        sys.stderr.write("".join(pieces))

    with OrphanReaper(GRACE) as reaper:
        _check_version(python, env, reaper)
        request_file, response_file = (os.path.join(reaper.folder, name) for name in ("request.json", "response.json"))
        with open(request_file, "w", encoding="ascii") as file:
            json.dump(request._asdict(), file)
        # -B: loading must not write bytecode into the user's folders.
        argv = (python, "-B", "-c", _BOOTSTRAP, _NAME, PACKAGE, response_file, request_file)
        process = _process(Command(argv, env), reaper)
        exit_ = process.follow(show, within=_TIMEOUT)
        source = SourceLine(request.file, 0)
        if exit_.stopped:
            raise WorkflowFileError(
                f"{python} did not finish loading this file within {_TIMEOUT:.0f} s and was terminated; move "
                f"long-running code into the module of a task{_last_lines(tail)}",
                source,
            )
        if exit_.code == 0:
            with suppress(OSError), open(response_file, encoding="ascii") as file:
                return json.load(file)
        end = exit_description(exit_.code, exit_.signal) if exit_.code != 0 else "was terminated by the file itself"
        raise WorkflowFileError(f"{python} {end} while it was loading this file{_last_lines(tail)}", source)


def _process(command: Command, reaper: OrphanReaper) -> Process:
    return Process(command, mark=reaper.child_tag(), grace=GRACE, guardian=reaper)


def _check_version(python: str, env: Mapping[str, str], reaper: OrphanReaper) -> None:
    found = find_interpreter(python, env, lambda command: _process(command, reaper))
    if tuple(map(int, found.version.split(".")[:2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise InterpreterError(
            f"{python} is Python {found.version}; loading a workflow file requires Python {oldest} or later"
        )


def _last_lines(tail: Tail) -> str:
    return f"\nLast lines of its output:\n{indent(chr(10).join(tail.lines), '  ')}" if tail.lines else ""


def _identity(file: str) -> list[Any]:
    """Return values that change when the file is replaced or modified."""
    status = os.stat(file)
    return [os.path.realpath(file), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def _working_directory() -> str | None:
    """Return the working directory, on which the content of a workflow may depend."""
    with suppress(FileNotFoundError):
        return os.getcwd()
    return None


@cache
def _version() -> list[Any]:
    """Return values that identify this version of the package, also during its development."""
    modules = (
        _identity(os.path.join(PACKAGE, folder, name))
        for folder in ("core", "loaders")
        for name in sorted(os.listdir(os.path.join(PACKAGE, folder)))
        if name.endswith(".py")
    )
    return [FORMAT, *modules]
