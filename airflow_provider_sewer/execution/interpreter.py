"""Find an interpreter, and make sure that it is one, before anything depends on it."""

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

_PATIENCE = 30.0
#: The file names of Python binaries, and how binaries begin.
_PYTHON = re.compile(r"(python|pypy)[\w.-]*")
_ELF = b"\x7fELF"
_TOO_MUCH = 1_000_000

_WHO_ARE_YOU = """
import json, sys
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable, "prefix": sys.prefix}))
"""

# Asks the finders, one level after the other, so that no package's code is run; what a package would be
# stands in sys.modules as an empty shell, for the finders of what is in it ask there. Without `-m`, the
# first entry of sys.path is the working directory, as it is for a module that is run: so nothing may be
# imported here that a file of the same name could stand in for.
_WHICH_ARE_MISSING = """
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


#: Makes the process of a command.
Starter = Callable[[Command], Process]


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


def find_interpreter(
    python: str | None, env: Mapping[str, str] | None = None, start: Starter | None = None
) -> Interpreter:
    """Find an interpreter and have it say who it is; one that has answered is not asked again.

    :param python: a path, or a name to look up on PATH; ``python``, else ``python3``, if not said.
    :param env: the environment it will be started with; it may need that to start at all.
    :param start: makes the process that asks it, for one who wants to guard and stop that.
    :raises InterpreterError: when there is none, or when it is no Python.
    """
    path = locate_interpreter(python)
    key = _key(path)
    if key not in _answers:
        _answers[key] = _introduced(path, build_environment({}) if env is None else env, start or _unguarded)
    return _answers[key]


def recognized_interpreter(python: str | None) -> Interpreter:
    """Return an interpreter that a path was found to be, for a path that is not trusted.

    Nothing is started unless it is a Python by its name and its format. It gets no environment and imports no packages,
    and nothing of its output is passed on but a version. Of a virtual environment, the Python that it was made from is
    started.

    :param python: as for :func:`find_interpreter`.
    :raises InterpreterError: when there is none, or when it is not recognized as a Python.
    """
    path = locate_interpreter(python)
    program = os.path.realpath(path)
    if not _PYTHON.fullmatch(os.path.basename(program)) or not _is_binary(program):
        raise InterpreterError(
            f"{path} is no Python binary, such as python3.11, so it was not started; name the interpreter itself"
        )
    answer = _asked([program, "-I", "-S", "-c", _WHO_ARE_YOU], {})
    try:
        version = parse_json(answer.last_line)["version"]
        if not re.fullmatch(r"3\.\d+\.\d+", version):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise InterpreterError(f"{path} is no Python 3 interpreter: it did not tell its version") from None
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
    """Return the absolute path of an interpreter that has once answered, be it another process of this user; else ask.

    A worker runs each task in a process of its own, and to ask takes as long as a short task.

    :param python, env, start: as for :func:`find_interpreter`.
    :raises InterpreterError: when there is none, or when it is no Python.
    """
    path = locate_interpreter(python)
    key = _key(path)
    if key not in _answers:
        from airflow_provider_sewer.execution.disk_cache import DiskCache

        kept = DiskCache("interpreters", key)
        if kept.get() is None:
            kept.put(find_interpreter(path, env, start))
    return path


def locate_interpreter(python: str | None) -> str:
    """Return the absolute path of an interpreter, without starting it.

    :param python: a path, or a name to look up on PATH; ``python``, else ``python3``, if not said.
    :raises InterpreterError: when there is no executable file.
    """
    if python is None:
        found = shutil.which("python") or shutil.which("python3")
        if found is None:
            raise InterpreterError("there is no python on PATH; name an interpreter (python=…, or sppe run -i …)")
        return os.path.abspath(found)
    if os.sep not in python:
        found = shutil.which(python)
        if found is None:
            raise InterpreterError(f"there is no interpreter {python!r} on PATH; correct the name or give its path")
        return os.path.abspath(found)
    path = os.path.abspath(os.path.expanduser(python))
    if os.path.isfile(path) and os.access(path, os.X_OK):
        return path
    if not os.path.lexists(path):
        raise InterpreterError(f"the interpreter {path} does not exist; create the environment, or correct the path")
    if not os.path.exists(path):
        raise InterpreterError(
            f"the interpreter {path} is a link to {os.path.realpath(path)}, which does not exist; "
            "create the environment anew"
        )
    if not os.path.isfile(path):
        raise InterpreterError(f"the interpreter {path} is no file; name the executable, such as {path}/bin/python")
    raise InterpreterError(f"the interpreter {path} is not executable for this user")


def missing_modules(
    python: str,
    modules: Collection[str],
    env: Mapping[str, str],
    workdir: str | None = None,
    start: Starter | None = None,
) -> list[str]:
    """Return those of the modules that an interpreter cannot find to run, without running any of their code.

    A name with a colon at its end is one that need only be imported. None is missing as far as it cannot be told. Who
    has answered need not be asked by :func:`find_interpreter` any more.
    """
    key = _key(python)
    answer = _asked([python, "-c", _WHICH_ARE_MISSING, *modules], env, workdir, start or _unguarded)
    try:
        *who, missing = ast.literal_eval(answer.last_line)
        _answers[key] = Interpreter(python, *who)
    except (ValueError, SyntaxError, TypeError):
        return []
    return [name for name in missing if name in modules]


def answer_of(
    python: str, code: str, arguments: Sequence[str], env: Mapping[str, str], workdir: str | None = None
) -> str:
    """Return the last line that an interpreter writes when it is given a few lines of code to run.

    Without ``-m``, the first entry of ``sys.path`` is the working directory, as it is for a module that is run.
    """
    return _asked([python, "-c", code, *arguments], env, workdir).last_line


def check_workdir(workdir: str | None) -> str | None:
    """Return the absolute path of a working directory.

    :raises WorkdirError: when it is missing or no directory, or when this user may not enter it.
    """
    if workdir is None:
        return None
    path = os.path.abspath(os.path.expanduser(workdir))
    if not os.path.isdir(path):
        what = "is no directory" if os.path.lexists(path) else "does not exist"
        raise WorkdirError(f"the working directory {path} {what}; create it, or correct workdir")
    if not os.access(path, os.X_OK):
        raise WorkdirError(f"the working directory {path} cannot be entered by this user; change its permissions")
    return path


def _key(path: str) -> tuple[object, ...]:
    status = os.stat(path)
    return path, status.st_dev, status.st_ino, status.st_mtime_ns


def _introduced(path: str, env: Mapping[str, str], start: Starter) -> Interpreter:
    answer = _asked([path, "-I", "-c", _WHO_ARE_YOU], env, start=start)
    try:
        said = parse_json(answer.last_line)
        return Interpreter(path, said["version"], said["executable"], said["prefix"])
    except (ValueError, KeyError, TypeError):
        raise InterpreterError(f"{path} is no Python 3 interpreter: asked for its version it {answer}") from None


class _Answer(NamedTuple):
    """What came of asking; as text, how to say that it is no answer."""

    exit_code: int | None
    is_given_up: bool
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        return self.stdout.rpartition("\n")[2]

    def __str__(self) -> str:
        how = f"gave no short answer within {_PATIENCE:.0f} s" if self.is_given_up else f"exited with {self.exit_code}"
        return f"{how} and said {(self.stderr or self.stdout)[:200]!r}"


def _unguarded(command: Command) -> Process:
    return Process(command, mark=new_tag(), grace=0.0)


def _asked(
    argv: Sequence[str], env: Mapping[str, str], workdir: str | None = None, start: Starter = _unguarded
) -> _Answer:
    """Start an interpreter, for a while and for so much output only: it may be anything."""
    said = {Stream.STDOUT: "", Stream.STDERR: ""}
    process = start(Command(tuple(argv), env, workdir))

    def remember(stream: Stream, pieces: Sequence[str]) -> None:
        said[stream] += "".join(pieces)
        if len(said[stream]) > _TOO_MUCH:
            process.stop()

    exit_ = process.follow(remember, within=_PATIENCE)
    return _Answer(exit_.code, exit_.stopped, said[Stream.STDOUT].strip(), said[Stream.STDERR].strip())
