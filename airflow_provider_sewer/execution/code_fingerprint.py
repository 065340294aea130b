"""What code and what environment a task runs on, as digests by which a change of them is noticed.

The task's interpreter is asked, in the task's own environment and working directory; none of the user's code is run.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import InterpreterError, ModuleNotFound
from airflow_provider_sewer.execution.interpreter import answer_of, check_workdir, find_interpreter

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

# A file in the working directory must not stand in for what is imported here, but what is installed there counts.
_WHAT_IS_INSTALLED = """
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
    """What interpreters say of code and environments; each is asked once, so a new one is made for each run."""

    def __init__(self) -> None:
        self._answers: dict[tuple[Any, ...], Any] = {}

    def code_fingerprint(self, task: Task) -> str:
        """Return a digest of the code of a task: all of the top-level package that its module is in.

        :raises ModuleMissing: when that is not there, or has no files that could be looked at.
        :raises InterpreterError, WorkdirError: when nobody can be asked.
        """
        package = task.call().module.partition(".")[0]
        digest = hashlib.sha256()
        for name, file in _sources(self._where_is(package, task)):
            if not os.path.isfile(file):  # such as a named pipe, which would be waited for
                continue
            with open(file, "rb") as opened:
                content = hashlib.sha256(opened.read()).hexdigest()
            digest.update(f"{name}\0{content}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def environment_fingerprint(self, task: Task) -> str:
        """Return a digest of the environment of a task: its interpreter, its variables, what is installed there.

        :raises InterpreterError, WorkdirError: when nobody can be asked.
        """
        interpreter = _interpreter(task)
        said = [interpreter.executable, interpreter.version, sorted(task.settings.env.items())]
        installed = self._asked(_WHAT_IS_INSTALLED, task, interpreter)
        return hashlib.sha256(json.dumps([*said, installed]).encode()).hexdigest()

    def _where_is(self, package: str, task: Task) -> list[str]:
        """Return the one file of a module, or the folders of a package."""
        interpreter = _interpreter(task)
        found = self._asked(_WHERE_IS, task, interpreter, package)
        origin, folders = found or (None, None)
        places = folders if folders is not None else [origin]
        if not places or not all(place and os.path.exists(place) for place in places):
            what = "has no file" if found else "is not there"
            raise ModuleNotFound(
                f"the code of {package!r} {what}, says {interpreter.path}, so nobody can tell whether it has changed; "
                "install it there, or leave out stale_with='code'"
            )
        return [str(place) for place in places]

    def _asked(self, code: str, task: Task, interpreter: Interpreter, *arguments: str) -> Any:
        env = _env(task)
        workdir = check_workdir(task.settings.workdir)
        key = (code, arguments, interpreter.path, workdir, tuple(sorted(env.items())))
        if key not in self._answers:
            answer = answer_of(interpreter.path, code, arguments, env, workdir)
            try:
                self._answers[key] = ast.literal_eval(answer)
            except (ValueError, SyntaxError):
                raise InterpreterError(
                    f"{interpreter.path} gave no answer when it was asked for code or environment of task "
                    f"{task.name!r}; leave out stale_with, or look what a start script of it does"
                ) from None
        return self._answers[key]


def _env(task: Task) -> Mapping[str, str]:
    return build_environment(task.settings.env, task.settings.inherit_env or False)


def _interpreter(task: Task) -> Interpreter:
    return find_interpreter(task.settings.python, _env(task))


def _sources(places: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Return the files of code in a fixed order, each with the name that it has in its package."""
    for place in places:
        if os.path.isfile(place):
            yield os.path.basename(place), place
        for parent, folders, files in os.walk(place):
            folders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    file = os.path.join(parent, name)
                    yield os.path.relpath(file, place), file
