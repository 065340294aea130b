"""Lookup and verification of Python interpreters."""

from __future__ import annotations

import ast
import os
import re
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.core.command import Command
from airflow_provider_sewer.core.environment import build_environment
from airflow_provider_sewer.core.errors import InterpreterError, WorkdirError
from airflow_provider_sewer.core.trusted_files import parse_json
from airflow_provider_sewer.execution.orphan_reaper import new_tag
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.process import Process

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_TIMEOUT = 30.0
#: The file names of Python binaries, and how binaries begin.
_PYTHON = re.compile(r"(python|pypy)[\w.-]*")
_ELF = b"\x7fELF"
_MAX_OUTPUT = 1_000_000

_IDENTIFY = """
import json, sys
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable, "prefix": sys.prefix}))
"""

# Asks the finders level by level, so that no package code is run. An empty module stands in sys.modules for each
# package, because the finders of its submodules look there. Without `-m`, the first entry of sys.path is the
# working directory, as it is for a module that is run: a file there could shadow any import, so only built-in
# modules are imported here.
_FIND_MISSING = """
import sys
def spec_of(name, path):
    for finder in sys.meta_path:
        spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if spec is not None: return spec
def find(name):
    path = None
    parts = name.rstrip(":").split(".")
    for end in range(1, len(parts) + 1):
        full = ".".join(parts[:end])
        spec = spec_of(full, path)
        if spec is None: return False
        path = spec.submodule_search_locations
        if end == len(parts) and name.endswith(":"): return True
        if path is None: return end == len(parts)
        shell = sys.modules.setdefault(full, type(sys)(full))
        shell.__path__ = path
        path = list(path)
    return find(name + ".__main__")
version = "%d.%d.%d" % sys.version_info[:3]
print("\\n" + repr((version, sys.executable, sys.prefix, [name for name in sys.argv[1:] if not find(name)])))
"""


#: Factory of the process of a command.
Starter = Callable[[Command], Process]


class Interpreter(NamedTuple):
    """A verified Python interpreter.

    :param path: the path that it was started by.
    :param version: such as ``3.11.7``.
    :param executable: its ``sys.executable``.
    :param prefix: the root of its environment.
    """

    path: str
    version: str
    executable: str
    prefix: str


_answers: dict[tuple[object, ...], Interpreter] = {}


def find_interpreter(
    python: str | None, env: Mapping[str, str] | None = None, start: Starter | None = None
) -> Interpreter:
    """Find an interpreter and query its version; answers are cached.

    :param python: a path, or a name to look up on PATH; ``python``, else ``python3``, if omitted.
    :param env: the environment to start it with; it may need it to start at all.
    :param start: creates the process of the query, for a caller that guards or stops it.
    :raises InterpreterError: when it does not exist, or is not a Python interpreter.
    """
    path = locate_interpreter(python)
    key = _key(path)
    if key not in _answers:
        _answers[key] = _identified(path, build_environment({}) if env is None else env, start or _unguarded)
    return _answers[key]


def recognized_interpreter(python: str | None) -> Interpreter:
    """Return the interpreter at an untrusted path.

    It is started only if its name and its file format are those of a Python binary. It gets no environment and imports
    no packages, and only a version is taken from its output. For a virtual environment, its base Python is started.

    :param python: as for :func:`find_interpreter`.
    :raises InterpreterError: when it does not exist, or is not recognized as Python.
    """
    path = locate_interpreter(python)
    program = os.path.realpath(path)
    if not _PYTHON.fullmatch(os.path.basename(program)) or not _is_binary(program):
        raise InterpreterError(
            f"{path} is not a Python binary, such as python3.11, and was not started; name the interpreter itself"
        )
    answer = _query([program, "-I", "-S", "-c", _IDENTIFY], {})
    try:
        version = parse_json(answer.last_line)["version"]
        if not re.fullmatch(r"3\.\d+\.\d+", version):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InterpreterError(f"{path} is not a Python 3 interpreter: it did not report its version") from None
    prefix = os.path.dirname(os.path.dirname(path))
    is_virtual = os.path.isfile(os.path.join(prefix, "pyvenv.cfg"))
    return Interpreter(path, version, path, prefix if is_virtual else os.path.dirname(os.path.dirname(program)))


def _is_binary(program: str) -> bool:
    try:
        with open(program, "rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError:
        return False


def known_interpreter(python: str | None, env: Mapping[str, str] | None = None, start: Starter | None = None) -> str:
    """Return the absolute path of a verified interpreter; the verification is cached on disk for this user.

    A worker runs each task in its own process, and a query takes as long as a short task.

    :param python, env, start: as for :func:`find_interpreter`.
    :raises InterpreterError: when it does not exist, or is not a Python interpreter.
    """
    path = locate_interpreter(python)
    key = _key(path)
    if key not in _answers:
        from airflow_provider_sewer.execution.disk_cache import DiskCache

        cache = DiskCache("interpreters", key)
        if cache.get() is None:
            cache.put(find_interpreter(path, env, start))
    return path


def locate_interpreter(python: str | None) -> str:
    """Return the absolute path of an interpreter, without starting it.

    :param python: a path, or a name to look up on PATH; ``python``, else ``python3``, if omitted.
    :raises InterpreterError: when there is no executable file.
    """
    if python is None:
        found = shutil.which("python") or shutil.which("python3")
        if found is None:
            raise InterpreterError("no python on PATH; name an interpreter (python=…, or sppe run -i …)")
        return os.path.abspath(found)
    if os.sep not in python:
        found = shutil.which(python)
        if found is None:
            raise InterpreterError(f"no interpreter {python!r} on PATH; correct the name or give its path")
        return os.path.abspath(found)
    path = os.path.abspath(os.path.expanduser(python))
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return path
    if not os.path.lexists(path):
        raise InterpreterError(f"the interpreter {path} does not exist; create the environment, or correct the path")
    if not os.path.exists(path):
        raise InterpreterError(
            f"the interpreter {path} is a link to {os.path.realpath(path)}, which does not exist; "
            "create the environment again"
        )
    if not os.path.isfile(path):
        raise InterpreterError(f"the interpreter {path} is not a file; name the executable, such as {path}/bin/python")
    raise InterpreterError(f"the interpreter {path} is not executable for this user")


def missing_modules(
    python: str,
    modules: Collection[str],
    env: Mapping[str, str],
    workdir: str | None = None,
    start: Starter | None = None,
) -> list[str]:
    """Return the modules that an interpreter cannot find, without running their code.

    A name that ends with a colon only needs to be importable; others must be runnable with ``-m``. If the interpreter
    gives no usable answer, no module counts as missing. The answer is cached for :func:`find_interpreter`.
    """
    key = _key(python)
    answer = _query([python, "-c", _FIND_MISSING, *modules], env, workdir, start or _unguarded)
    try:
        *identity, missing = ast.literal_eval(answer.last_line)
        _answers[key] = Interpreter(python, *identity)
    except (ValueError, SyntaxError, TypeError):
        return []
    return [name for name in missing if name in modules]


def last_output_line(
    python: str, code: str, arguments: Sequence[str], env: Mapping[str, str], workdir: str | None = None
) -> str:
    """Run code in an interpreter and return the last line of its output.

    Without ``-m``, the first entry of ``sys.path`` is the working directory, as it is for a module that is run.
    """
    return _query([python, "-c", code, *arguments], env, workdir).last_line


def check_workdir(workdir: str | None) -> str | None:
    """Return the absolute path of a working directory.

    :raises WorkdirError: when it does not exist, is not a directory, or cannot be entered by this user.
    """
    if workdir is None:
        return None
    path = os.path.abspath(os.path.expanduser(workdir))
    if not os.path.isdir(path):
        problem = "is not a directory" if os.path.lexists(path) else "does not exist"
        raise WorkdirError(f"the working directory {path} {problem}; create it, or correct workdir")
    if not os.access(path, os.X_OK):
        raise WorkdirError(f"the working directory {path} cannot be entered by this user; change its permissions")
    return path


def _key(path: str) -> tuple[object, ...]:
    status = os.stat(path)
    return path, status.st_dev, status.st_ino, status.st_mtime_ns


def _identified(path: str, env: Mapping[str, str], start: Starter) -> Interpreter:
    answer = _query([path, "-I", "-c", _IDENTIFY], env, start=start)
    try:
        data = parse_json(answer.last_line)
        return Interpreter(path, data["version"], data["executable"], data["prefix"])
    except (ValueError, KeyError, TypeError):
        raise InterpreterError(f"{path} is not a Python 3 interpreter: asked for its version it {answer}") from None


class _Answer(NamedTuple):
    """Outcome of a query; as text, a clause that describes its failure."""

    exit_code: int | None
    is_given_up: bool
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        return self.stdout.rpartition("\n")[2]

    def __str__(self) -> str:
        how = f"gave no short answer within {_TIMEOUT:.0f} s" if self.is_given_up else f"exited with {self.exit_code}"
        return f"{how} and wrote {(self.stderr or self.stdout)[:200]!r}"


def _unguarded(command: Command) -> Process:
    return Process(command, mark=new_tag(), grace=0.0)


def _query(
    argv: Sequence[str], env: Mapping[str, str], workdir: str | None = None, start: Starter = _unguarded
) -> _Answer:
    """Start a program that may not be an interpreter, with limits on its time and its output."""
    output = {Stream.STDOUT: "", Stream.STDERR: ""}
    process = start(Command(tuple(argv), env, workdir))

    def collect(stream: Stream, pieces: Sequence[str]) -> None:
        output[stream] += "".join(pieces)
        if len(output[stream]) > _MAX_OUTPUT:
            process.stop()

    exit_ = process.follow(collect, within=_TIMEOUT)
    return _Answer(exit_.code, exit_.stopped, output[Stream.STDOUT].strip(), output[Stream.STDERR].strip())
