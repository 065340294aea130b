"""Digests of the code and the environment of a task, which change with them.

The task's interpreter is queried in the task's own environment and working directory; no user code is run.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import InterpreterError, ModuleNotFound
from airflow_provider_sewer.execution.interpreter import check_workdir, find_interpreter, last_output_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.execution.interpreter import Interpreter

# Asks the finders, so that the package is not imported.
_WHERE_IS = """
import sys
for finder in sys.meta_path:
    spec = finder.find_spec(sys.argv[1], None) if hasattr(finder, "find_spec") else None
    if spec is not None:
        folders = spec.submodule_search_locations
        print("\\n" + repr([spec.origin if spec.has_location else None, None if folders is None else list(folders)]))
        break
else:
    print("\\n[]")
"""

# A file in the working directory must not shadow the imports here, but distributions installed there count.
_LIST_INSTALLED = """
import sys
path = sys.path[:]
sys.path[:] = [folder for folder in path if folder]
from importlib.metadata import distributions
sys.path[:] = path
names = set()
for distribution in distributions():
    try:
        names.add((str(distribution.metadata["Name"]), str(distribution.version)))
    except Exception:
        pass  # half removed
print("\\n" + repr(sorted(names)))
"""


class Fingerprinter:
    """Code and environment fingerprints, cached per run."""

    def __init__(self) -> None:
        self._answers: dict[tuple[Any, ...], Any] = {}

    def code_fingerprint(self, task: Task) -> str:
        """Return a digest of a task's code: all files of the top-level package of its module.

        :raises ModuleNotFound: when the package does not exist, or has no readable files.
        :raises InterpreterError, WorkdirError: when the interpreter cannot be queried.
        """
        package = task.call().module.partition(".")[0]
        digest = hashlib.sha256()
        for name, file in _sources(self._locate(package, task)):
            if not os.path.isfile(file):  # opening a named pipe would block
                continue
            with open(file, "rb") as opened:
                content = hashlib.sha256(opened.read()).hexdigest()
            digest.update(f"{name}\0{content}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def environment_fingerprint(self, task: Task) -> str:
        """Return a digest of a task's environment: its interpreter, its variables, the installed distributions.

        :raises InterpreterError, WorkdirError: when the interpreter cannot be queried.
        """
        interpreter = _interpreter(task)
        identity = [interpreter.executable, interpreter.version, sorted(task.settings.env.items())]
        installed = self._query(_LIST_INSTALLED, task, interpreter)
        return hashlib.sha256(json.dumps([*identity, installed]).encode()).hexdigest()

    def _locate(self, package: str, task: Task) -> list[str]:
        """Return the one file of a module, or the folders of a package."""
        interpreter = _interpreter(task)
        found = self._query(_WHERE_IS, task, interpreter, package)
        origin, folders = found or (None, None)
        places = folders if folders is not None else [origin]
        if not places or not all(place and os.path.exists(place) for place in places):
            problem = "has no file" if found else "cannot be found"
            raise ModuleNotFound(
                f"the code of {package!r} {problem} by {interpreter.path}, so changes cannot be detected; "
                "install it there, or remove stale_with='code'"
            )
        return [str(place) for place in places]

    def _query(self, code: str, task: Task, interpreter: Interpreter, *arguments: str) -> Any:
        env = _env(task)
        workdir = check_workdir(task.settings.workdir)
        key = (code, arguments, interpreter.path, workdir, tuple(sorted(env.items())))
        if key not in self._answers:
            answer = last_output_line(interpreter.path, code, arguments, env, workdir)
            try:
                self._answers[key] = ast.literal_eval(answer)
            except (ValueError, SyntaxError):
                raise InterpreterError(
                    f"{interpreter.path} gave no answer when queried for the code or environment of task "
                    f"{task.name!r}; remove stale_with, or check its start script"
                ) from None
        return self._answers[key]


def _env(task: Task) -> Mapping[str, str]:
    return build_environment(task.settings.env, task.settings.inherit_env or False)


def _interpreter(task: Task) -> Interpreter:
    return find_interpreter(task.settings.python, _env(task))


def _sources(places: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the code files in a fixed order, each with its path relative to its package."""
    for place in places:
        if os.path.isfile(place):
            yield os.path.basename(place), place
        for parent, folders, files in os.walk(place):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    file = os.path.join(parent, name)
                    yield os.path.relpath(file, place), file
