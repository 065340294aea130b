"""Program that loads a workflow file inside another interpreter.

That interpreter has the packages that the file imports and need not have this one:
:mod:`airflow_provider_sewer.loaders.external.reader` makes only this package importable. The result is written to a
file as JSON, with fingerprints of all files that were read. While these are unchanged, the result can be cached.
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

from airflow_provider_sewer.core.cache_fingerprints import fingerprint, is_installed
from airflow_provider_sewer.core.errors import SewerError, WorkflowFileError
from airflow_provider_sewer.core.serialization import error_to_data, tasks_to_data, value_of_data, workflow_to_data
from airflow_provider_sewer.core.source import SourceLine, is_own_file
from airflow_provider_sewer.loaders.python_file import load_tasks, load_workflow

if TYPE_CHECKING:
    from types import FrameType

#: Audit events of effects beyond files, after which the result is not cacheable.
_UNCACHEABLE = frozenset({
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "socket.connect",
    "socket.sendto", "sqlite3.connect", "subprocess.Popen",
})  # fmt: skip

#: Standard library modules that run other programs to query the system; many packages call them on import.
_SYSTEM_QUERIES = frozenset({"ctypes.util", "platform"})

#: Virtual file systems.
_VIRTUAL = ("/dev/", "/proc/", "/sys/")

#: Folder of the standard library.
_STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


class FileAccessRecorder:
    """Audit hook that records fingerprints of all files and folders that this process reads.

    A fingerprint is taken before the access, so a change during the load is detected later.
    """

    def __init__(self) -> None:
        self.fingerprints: dict[str, str] = {}
        self.is_complete = True
        self._thread = threading.local()

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        """Record an audit event. Exceptions are caught, as they would abort the audited operation."""
        if getattr(self._thread, "is_recording", False):
            return
        self._thread.is_recording = True
        try:
            self._record_event(event, details)
        except Exception:
            self.is_complete = False
        finally:
            self._thread.is_recording = False

    def record(self, path: str) -> None:
        """Record the fingerprint of a file or folder, if it is not recorded yet."""
        path = os.path.abspath(path)
        if path not in self.fingerprints and not _is_excluded(path):
            self.fingerprints[path] = fingerprint(path)

    def record_environment(self) -> None:
        """Record the environment of this interpreter, and modules that were imported before the hook was added."""
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

    def _record_event(self, event: str, details: tuple[Any, ...]) -> None:
        if event in _UNCACHEABLE:
            self.is_complete = self.is_complete and _is_system_query()
        elif event == "open" and isinstance(details[0], (str, bytes)) and not _is_only_written(details[2]):
            self.record(_source_of(os.fsdecode(details[0])))
        elif event == "import" and isinstance(
            details[1], str
        ):  # an extension module, which the dynamic linker opens without an event
            self.record(details[1])
        elif event in ("os.listdir", "os.scandir"):
            if isinstance(details[0], int):  # an open folder, whose path is not known
                self.is_complete = False
            else:
                self.record(os.fsdecode(details[0] or os.curdir))


def main(response_file: str, request_file: str) -> None:
    """Load a workflow file and write the result as JSON.

    :param response_file: file to write.
    :param request_file: JSON file with ``kind`` (``workflow``, or ``tasks`` for all tasks of the file), ``file``,
        ``name`` of the workflow, if given, and ``arguments`` of its function.
    """
    with open(request_file, encoding="ascii") as file:
        request = json.load(file)
    sys.argv[:] = [request["file"]]
    recorder = FileAccessRecorder()
    recorder.record_environment()
    sys.addaudithook(recorder)
    importlib.invalidate_caches()  # cached folder listings would hide accesses from the hook
    response = _response(request)
    recorder.record_environment()
    fingerprints = recorder.fingerprints if recorder.is_complete and "error" not in response else None
    with open(response_file, "w", encoding="ascii") as output:
        json.dump({**response, "fingerprints": fingerprints}, output)


def _response(request: dict[str, Any]) -> dict[str, Any]:
    file = request["file"]
    try:
        if request["kind"] == "tasks":
            return {"tasks": tasks_to_data(load_tasks(file))}
        arguments = value_of_data(request["arguments"])
        return {"workflow": workflow_to_data(load_workflow(file, request["name"], arguments))}
    except SewerError as error:
        return {"error": error_to_data(error)}
    except BaseException as error:  # also SystemExit and the like: this process ends in any case
        message = f"the file exits the program ({type(error).__name__}: {error}) while it is loaded"
        return {"error": error_to_data(WorkflowFileError(message, SourceLine(file, 0)))}


def _is_system_query() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame and frame.f_globals.get("__name__") not in _SYSTEM_QUERIES:
        frame = frame.f_back
    return frame is not None


def _is_only_written(flags: Any) -> bool:
    return isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY


def _source_of(path: str) -> str:
    """Return the source file of compiled bytecode."""
    if not path.endswith(".pyc"):
        return path
    with suppress(ValueError):
        source = importlib.util.source_from_cache(path)
        return source if os.path.exists(source) else path
    return path


def _is_excluded(path: str) -> bool:
    if path.startswith(_VIRTUAL) or is_own_file(path):
        return True
    return (path + os.sep).startswith(_STANDARD) and not is_installed(path)
