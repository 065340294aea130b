"""Find an interpreter, and make sure that it is one, before anything depends on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import InterpreterError, WorkdirError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_PATIENCE = 30.0

_WHO_ARE_YOU = """
import json, sys
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable, "prefix": sys.prefix}))
"""

# Asks the finders, one level after the other, so that no package's code is run. Without `-m`, the
# first entry of sys.path is the working directory, as it is for a module that is run.
_WHICH_ARE_MISSING = """
import json, sys
def find(name):
    path = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        full = ".".join(parts[:end])
        if full in sys.builtin_module_names: return True
        for finder in sys.meta_path:
            spec = finder.find_spec(full, path) if hasattr(finder, "find_spec") else None
            if spec is not None: break
        else: return False
        path = spec.submodule_search_locations
        if path is None: return end == len(parts)
        path = list(path)
    return True
print(json.dumps([name for name in sys.argv[1:] if not find(name)]))
"""


class Interpreter(NamedTuple):
    """A Python that answered.

    :param path: the path it was called by.
    :param version: such as ``3.11.7``.
    :param executable: what it calls itself.
    :param prefix: the root of its environment.
    """

    path: str
    version: str
    executable: str
    prefix: str


_answers: dict[tuple[object, ...], Interpreter] = {}


def find_interpreter(python: str | None) -> Interpreter:
    """Find an interpreter and have it say who it is; asked once in a process for each executable.

    :param python: a path, or a name to look up on PATH; ``python``, else ``python3``, if not said.
    :raises InterpreterError: when there is none, or when it is no Python.
    """
    path = _located(python)
    status = os.stat(path)
    key = (path, status.st_dev, status.st_ino, status.st_mtime_ns)
    if key not in _answers:
        _answers[key] = _asked(path)
    return _answers[key]


def missing_modules(
    python: str, modules: Collection[str], env: Mapping[str, str], workdir: str | None = None
) -> list[str]:
    """Return those of the modules that an interpreter does not find, without running any of their code."""
    asked = _run([python, "-c", _WHICH_ARE_MISSING, *modules], env=env, workdir=workdir)
    missing: list[str] = json.loads(_last_line(asked.stdout)) if asked.returncode == 0 else []
    return missing


def check_workdir(workdir: str | None) -> str | None:
    """Return the absolute path of a working directory.

    :raises WorkdirError: when it is missing or no directory.
    """
    if workdir is None:
        return None
    path = os.path.abspath(os.path.expanduser(workdir))
    if not os.path.isdir(path):
        what = "is no directory" if os.path.lexists(path) else "does not exist"
        raise WorkdirError(f"the working directory {path} {what}; create it, or correct workdir")
    return path


def _located(python: str | None) -> str:
    if python is None:
        found = shutil.which("python") or shutil.which("python3")
        if found is None:
            raise InterpreterError("there is no python on PATH; name an interpreter (python=…, or sppe run -i …)")
        return found
    if os.sep not in python:
        found = shutil.which(python)
        if found is None:
            raise InterpreterError(f"there is no interpreter {python!r} on PATH; correct the name or give its path")
        return found
    path = os.path.abspath(os.path.expanduser(python))
    if not os.path.lexists(path):
        raise InterpreterError(f"the interpreter {path} does not exist; create the environment, or correct the path")
    if not os.path.isfile(path):
        raise InterpreterError(f"the interpreter {path} is no file; name the executable, such as {path}/bin/python")
    if not os.access(path, os.X_OK):
        raise InterpreterError(f"the interpreter {path} is not executable for this user")
    return path


def _asked(path: str) -> Interpreter:
    try:
        asked = _run([path, "-I", "-S", "-c", _WHO_ARE_YOU], env=build_environment({}))
        answer = json.loads(_last_line(asked.stdout))
        return Interpreter(path, answer["version"], answer["executable"], answer["prefix"])
    except subprocess.TimeoutExpired:
        reason = f"it did not answer within {_PATIENCE:.0f} s"
    except OSError as error:
        reason = str(error.strerror)
    except (ValueError, KeyError, TypeError):
        said = (asked.stderr or asked.stdout).decode("utf-8", "backslashreplace").strip()[:200]
        reason = f"asked for its version it exited with {asked.returncode} and said {said!r}"
    raise InterpreterError(f"{path} is no Python 3 interpreter: {reason}")


def _run(argv: list[str], env: Mapping[str, str], workdir: str | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, cwd=workdir, timeout=_PATIENCE, check=False
    )


def _last_line(output: bytes) -> bytes:
    return output.strip().rpartition(b"\n")[2]
