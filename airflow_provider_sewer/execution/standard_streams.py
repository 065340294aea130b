"""Files as stdin and stdout of a process: how they are opened, and which processes still write to them."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import FileSystemRefused, ProductError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_sewer.core.command import Command

_PROC = "/proc"
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def opened_streams(command: Command) -> Iterator[tuple[int | None, int | None]]:
    """Open the files of a command's stdin and stdout for the block; ``None`` for one that is not a file.

    A relative path is resolved against the working directory of the command.

    :raises ProductError: when a file is not a regular one.
    :raises FileSystemRefused: when a file cannot be opened.
    """
    descriptors: list[int | None] = []
    try:
        for stream, path, flags in (
            ("stdin", command.stdin, os.O_RDONLY),
            ("stdout", command.stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            file = None if path is None else os.path.join(command.workdir or "", path)
            descriptors.append(None if file is None else _opened(stream, file, flags))
        yield descriptors[0], descriptors[1]
    finally:
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)


def require_regular(stream: str, file: str) -> None:
    """Require that an existing file can be stdin or stdout.

    :raises ProductError: when it is not a regular file.
    """
    _check_kind(stream, file, os.stat(file).st_mode)


def _opened(stream: str, file: str, flags: int) -> int:
    try:
        # A named pipe must not block until another process opens it, too.
        descriptor = os.open(file, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if os.path.exists(file):
            require_regular(stream, file)
        raise FileSystemRefused(f"{stream}: cannot open {file}: {error.strerror}") from None
    try:
        _check_kind(stream, file, os.fstat(descriptor).st_mode)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_kind(stream: str, file: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "another file")
        raise ProductError(f"{stream} must be a regular file, got {kind}: {file}")


def is_written_to(file: os.stat_result, tag: str, session: int) -> bool:
    """Return whether a process of a tree has a file open.

    :param file: the status of the file.
    :param tag: the tag of the tree (see :mod:`airflow_provider_sewer.execution.process_tree`).
    :param session: the session of its root.
    """
    if not os.path.isdir(f"{_PROC}/self/fd"):
        return False
    members = (pid for pid in os.listdir(_PROC) if pid.isdecimal() and _is_member(pid, tag, session))
    return any(_has_open(pid, file) for pid in members)


def _is_member(pid: str, tag: str, session: int) -> bool:
    with suppress(OSError):
        if os.getsid(int(pid)) == session:
            return True
        with open(f"{_PROC}/{pid}/environ", "rb") as environ:
            return f"{ATTEMPT_ID}={tag}".encode() in environ.read()
    return False


def _has_open(pid: str, file: os.stat_result) -> bool:
    with suppress(OSError):
        for name in os.listdir(f"{_PROC}/{pid}/fd"):
            with suppress(OSError):
                if os.path.samestat(os.stat(f"{_PROC}/{pid}/fd/{name}"), file):
                    return True
    return False
