"""Have a workflow file read by another interpreter: the one that has what the file imports.

This package is lent to it, through a path that leads to this package alone: nothing is installed there, and nothing
that is installed beside this package can be imported. The file is read in the environment that its tasks get: the short
list, and what is given. The workflow comes back as JSON and is kept (see
:mod:`airflow_provider_sewer.execution.disk_cache`).
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
from airflow_provider_sewer.execution.module_runner import GRACE, exit_description
from airflow_provider_sewer.execution.orphan_reaper import OrphanReaper
from airflow_provider_sewer.execution.output import Stream, Tail
from airflow_provider_sewer.execution.process import Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_sewer.core.execution_settings import ExecutionSettings
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow

#: Seconds that reading a file may take.
_PATIENCE = 120.0

#: The oldest Python that this package's model and its reader run on.
_OLDEST = (3, 9)

#: The names of files that are no Python.
_STAGES = (".yaml", ".yml")

_NAME = __name__.partition(".")[0]

# The working directory is first in the path of what is started with -c. A file that is read finds its own folder and
# what is installed, wherever somebody stands; and the folder that this package lies in may be full of other packages,
# so that it must not get into the path.
_LEND = f"""
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
    """What is to be read.

    :param wanted: ``workflow``, or ``tasks`` for all tasks of the file.
    :param file: the absolute path of the workflow file.
    :param name: the name of the workflow, if one was given.
    :param arguments: what its function is called with, as JSON says it.
    """

    wanted: str
    file: str
    name: str | None = None
    arguments: Any = None


def read_workflow(
    path: str | os.PathLike[str],
    workflow: str | None,
    settings: ExecutionSettings,
    arguments: Mapping[str, Any] | None = None,
) -> Workflow:
    """Have a workflow file read, and return one of its workflows as a graph.

    :param path: the workflow file.
    :param workflow: its name, where the file holds several.
    :param settings: the interpreter that reads it, and the environment it does that in.
    :param arguments: what the workflow's function is called with, by the names of its parameters.
    :raises SewerError: whatever is raised where the file is read, as it is raised there.
    :raises InterpreterError: when the interpreter cannot read a workflow file.
    """
    wish = _Request("workflow", os.path.abspath(path), workflow, value_to_data("arguments", arguments or {}))
    return workflow_of_data(_read(wish, settings))


def read_tasks(path: str | os.PathLike[str], settings: ExecutionSettings) -> list[Task]:
    """Have a workflow file read, and return all its tasks.

    :param path: the workflow file.
    :param settings: the interpreter that reads it, and the environment it does that in.
    :raises SewerError: as for :func:`read_workflow`.
    """
    return tasks_of_data(_read(_Request("tasks", os.path.abspath(path)), settings))


def _read(wish: _Request, settings: ExecutionSettings) -> Any:
    """Return what came of reading, be it now or before."""
    if wish.file.lower().endswith(_STAGES):
        raise WorkflowFileError(
            "stages in YAML import nothing, and need no other interpreter to be read; leave out "
            "--read-with-interpreter, or read_with_interpreter=True",
            SourceLine(wish.file, 0),
        )
    env = build_environment(settings.env, settings.inherit_env or False)
    for name in PART_OF_MACHINE - settings.env.keys():  # a file means the same wherever it is read
        env.pop(name, None)
    python = locate_interpreter(settings.python)
    env = activated(env, python, settings)
    place = [os.path.realpath(wish.file), _here()]
    kept = DiskCache("workflows", [wish._asdict(), place, sorted(env.items()), python, _identity(python), _version()])
    found = kept.get()
    if found is None:
        answer = _asked(wish, python, env)
        if "error" in answer:
            raise error_of_data(answer["error"])
        found = answer[wish.wanted]
        if answer["looks"] is not None:
            kept.put(found, answer["looks"])
    return found


def _asked(wish: _Request, python: str, env: Mapping[str, str]) -> Any:
    """Have the file read now."""
    tail = Tail()

    def show(_: Stream, pieces: Sequence[str]) -> None:
        tail.take(pieces)
        sys.stderr.write("".join(pieces))

    with OrphanReaper(GRACE) as guardian:
        _check_version(python, env, guardian)
        wish_file, answer_file = (os.path.join(guardian.folder, name) for name in ("wish.json", "answer.json"))
        with open(wish_file, "w", encoding="ascii") as file:
            json.dump(wish._asdict(), file)
        # -B: no folder is to hold traces of having been read.
        argv = (python, "-B", "-c", _LEND, _NAME, PACKAGE, answer_file, wish_file)
        process = _process(Command(argv, env), guardian)
        exit_ = process.follow(show, within=_PATIENCE)
        whole = SourceLine(wish.file, 0)
        if exit_.stopped:
            raise WorkflowFileError(
                f"{python} did not come to the end of this file within {_PATIENCE:.0f} s, and was ended; what takes "
                f"long belongs into the module of a task{_printed(tail)}",
                whole,
            )
        if exit_.code == 0:
            with suppress(OSError), open(answer_file, encoding="ascii") as file:
                return json.load(file)
        how = exit_description(exit_.code, exit_.signal) if exit_.code != 0 else "was ended by the file itself"
        raise WorkflowFileError(f"{python} {how} while it was reading this file{_printed(tail)}", whole)


def _process(command: Command, guardian: OrphanReaper) -> Process:
    return Process(command, mark=guardian.child_tag(), grace=GRACE, guardian=guardian)


def _check_version(python: str, env: Mapping[str, str], guardian: OrphanReaper) -> None:
    found = find_interpreter(python, env, lambda command: _process(command, guardian))
    if tuple(map(int, found.version.split(".")[:2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise InterpreterError(
            f"{python} is Python {found.version}; a workflow file is read by Python {oldest} or later"
        )


def _printed(tail: Tail) -> str:
    return f"\nThe last lines it wrote:\n{indent(chr(10).join(tail.lines), '  ')}" if tail.lines else ""


def _identity(file: str) -> list[Any]:
    """Return what another file in the place of this one would not have."""
    status = os.stat(file)
    return [os.path.realpath(file), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def _here() -> str | None:
    """Return the folder that this runs in, which what a file says may depend on."""
    with suppress(FileNotFoundError):
        return os.getcwd()
    return None


@cache
def _version() -> list[Any]:
    """Return what tells this package from its other versions, those that are being worked on as well."""
    modules = (
        _identity(os.path.join(PACKAGE, folder, name))
        for folder in ("core", "loaders")
        for name in sorted(os.listdir(os.path.join(PACKAGE, folder)))
        if name.endswith(".py")
    )
    return [FORMAT, *modules]
