"""Read a workflow file inside the interpreter that this package is lent to.

That interpreter has what the file imports and need not have this package: whoever starts it (see
:mod:`airflow_provider_sewer.loaders.external.client`) puts the package in its reach, and nothing else. What came of
reading is left in a file, as JSON, together with all that was looked at on the way: as long as that looks the same,
the file need not be read again.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import SewerError, WorkflowFileError
from airflow_provider_sewer.core.file_fingerprints import fingerprint, is_installed
from airflow_provider_sewer.core.serialization import error_to_data, tasks_to_data, value_of_data, workflow_to_data
from airflow_provider_sewer.core.source import SourceLine, is_own_file
from airflow_provider_sewer.loaders.python_file import load_tasks, load_workflow

if TYPE_CHECKING:
    from types import FrameType

#: What reaches beyond files, so that nobody can tell whether it would come out the same again.
_BEYOND = frozenset({
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "socket.connect",
    "socket.sendto", "sqlite3.connect", "subprocess.Popen",
})  # fmt: skip

#: Modules of Python itself that ask other programs what the system is like; many packages call them when imported.
_ABOUT_THE_SYSTEM = frozenset({"ctypes.util", "platform"})

#: What the system makes up when it is asked.
_MADE_UP = ("/dev/", "/proc/", "/sys/")

#: Where modules of Python itself lie.
_STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


class FileAccessRecorder:
    """Notes all files and folders that are looked at in this process, as they are just before that.

    So whatever is changed meanwhile does not look as noted, and is read again.
    """

    def __init__(self) -> None:
        self.fingerprints: dict[str, str] = {}
        self.is_complete = True
        self._own = threading.local()

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        """Note what Python is about to do. An error raised here would keep it from that."""
        if getattr(self._own, "is_looking", False):
            return
        self._own.is_looking = True
        try:
            self._note_event(event, details)
        except Exception:
            self.is_complete = False
        finally:
            self._own.is_looking = False

    def record(self, path: str) -> None:
        """Note what a file or folder looks like, if that was not done before."""
        path = os.path.abspath(path)
        if path not in self.fingerprints and not _is_left_aside(path):
            self.fingerprints[path] = fingerprint(path)

    def record_environment(self) -> None:
        """Note what this interpreter was started with, and the modules that nobody saw being opened."""
        self.record(os.path.join(sys.prefix, "pyvenv.cfg"))
        for folder in filter(is_installed, sys.path):
            self.record(folder)
            with suppress(OSError):
                for name in os.listdir(folder):
                    if name.endswith(".pth"):
                        self.record(os.path.join(folder, name))
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str):
                self.record(file)

    def _note_event(self, event: str, details: tuple[Any, ...]) -> None:
        if event in _BEYOND:
            self.is_complete = self.is_complete and _is_about_the_system()
        elif event == "open" and isinstance(details[0], (str, bytes)) and not _is_only_written(details[2]):
            self.record(_source_of(os.fsdecode(details[0])))
        elif event == "import" and isinstance(details[1], str):  # compiled code, which the system opens itself
            self.record(details[1])
        elif event in ("os.listdir", "os.scandir"):
            if isinstance(details[0], int):  # an open folder, whose path is not known
                self.is_complete = False
            else:
                self.record(os.fsdecode(details[0] or os.curdir))


def main(answer_file: str, wish_file: str) -> None:
    """Read a workflow file and leave what came of it as JSON.

    :param answer_file: where to leave it.
    :param wish_file: what is to be read: ``wanted``, which is ``workflow``, or ``tasks`` for all tasks of the file; the
        ``file``; the ``name`` of the workflow, if one was given, and the ``arguments`` of its function.
    """
    with open(wish_file, encoding="ascii") as file:
        wish = json.load(file)
    sys.argv[:] = [wish["file"]]
    witness = FileAccessRecorder()
    witness.record_environment()
    sys.addaudithook(witness)
    importlib.invalidate_caches()  # which folders are looked into is seen only when they are looked into
    said = _printed(wish)
    witness.record_environment()
    looks = witness.fingerprints if witness.is_complete and "error" not in said else None
    with open(answer_file, "w", encoding="ascii") as answer:
        json.dump({**said, "looks": looks}, answer)


def _printed(wish: dict[str, Any]) -> dict[str, Any]:
    file = wish["file"]
    try:
        if wish["wanted"] == "tasks":
            return {"tasks": tasks_to_data(load_tasks(file))}
        arguments = value_of_data(wish["arguments"])
        return {"workflow": workflow_to_data(load_workflow(file, wish["name"], arguments))}
    except SewerError as error:
        return {"error": error_to_data(error)}
    except BaseException as error:  # what is not meant to be caught ends this process in any case
        said = f"the file ends the program ({type(error).__name__}: {error}) while it is read"
        return {"error": error_to_data(WorkflowFileError(said, SourceLine(file, 0)))}


def _is_about_the_system() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame and frame.f_globals.get("__name__") not in _ABOUT_THE_SYSTEM:
        frame = frame.f_back
    return frame is not None


def _is_only_written(flags: Any) -> bool:
    return isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY


def _source_of(path: str) -> str:
    """Return what a compiled module was compiled from."""
    if not path.endswith(".pyc"):
        return path
    with suppress(ValueError):
        source = importlib.util.source_from_cache(path)
        return source if os.path.exists(source) else path
    return path


def _is_left_aside(path: str) -> bool:
    if path.startswith(_MADE_UP) or is_own_file(path):
        return True
    return (path + os.sep).startswith(_STANDARD) and not is_installed(path)
