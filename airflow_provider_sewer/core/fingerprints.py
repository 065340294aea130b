"""Fingerprints of files and directories."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from airflow_provider_sewer.core.paths import OWN_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CHUNK = 1 << 20


class Fingerprint(NamedTuple):
    """Fingerprint of a file or directory.

    It is stored as a list of its three fields.

    :param seen: changes with the time of change or the size; of a directory, with those of any file in it.
    :param content: digest of the content; ``None`` where it was not read.
    :param identity: also changes with ctime and inode; while it is the same, so is the content.
    """

    seen: str
    content: Optional[str] = None
    identity: Optional[str] = None


def fingerprint_of(file: str, beside: Sequence[str] = (), *, read: bool = False) -> Fingerprint | None:
    """Return the current fingerprint of a file or directory, or ``None`` if it does not exist.

    Links to files and directories are followed, also inside a directory.

    :param beside: files that belong to it and must exist as well.
    :param read: whether to read the content as well.
    """
    try:
        status = os.stat(file)
        if not beside and not stat.S_ISDIR(status.st_mode):  # the status is older than the content: later changes show
            return Fingerprint(_seen(status), _content(file, status) if read else None, _identity(status))
        seen, content, identity = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        for root in (file, *beside):
            name = "" if root is file else os.path.basename(root)
            for entry in _entries(root):
                label = f"{name}\0{entry.name}"
                _add(seen, label, _seen(entry.status) if entry.status else entry.text)
                _add(identity, label, _identity(entry.status) if entry.status else entry.text)
                if read:
                    _add(content, label, _content(entry.path, entry.status) if entry.status else entry.text)
        return Fingerprint(seen.hexdigest(), content.hexdigest() if read else None, identity.hexdigest())
    except (FileNotFoundError, NotADirectoryError):
        return None


class _Entry(NamedTuple):
    """File in a directory, or another entry that is not traversed.

    :param name: its path in the directory.
    :param status: status of the file, or of the target of a link.
    :param text: description of another entry.
    """

    name: str
    path: str
    status: Optional[os.stat_result]
    text: str = ""


def _entries(top: str) -> Iterator[_Entry]:
    """Return the files below a directory and its empty directories; for a file, the file itself.

    Each directory is entered once, so that cyclic links end. A link to the root of the file system is not followed:
    it would include every file of the machine.
    """
    root = os.stat(os.sep)
    entered = {(root.st_dev, root.st_ino): os.sep}
    pending = [("", top)]
    while pending:
        name, path = pending.pop()
        try:
            status = os.stat(path)
        except OSError as error:
            if not name:
                raise
            if os.path.lexists(path):  # otherwise it was just removed
                yield _Entry(name, path, None, f"{error.strerror}: {_target(path)}")
            continue
        if not stat.S_ISDIR(status.st_mode):
            yield _Entry(name, path, status)
            continue
        key = (status.st_dev, status.st_ino)
        if name and key in entered:
            yield _Entry(name, path, None, f"the same as {entered[key]}")
            continue
        entered[key] = name
        try:
            names = [each for each in os.listdir(path) if each != OWN_FOLDER]
        except PermissionError:
            yield _Entry(name, path, None, "a directory that cannot be read")
            continue
        except FileNotFoundError:
            if not name:
                raise
            continue  # it was just removed
        if not names:
            yield _Entry(name, path, None, "an empty directory")
        pending += [(os.path.join(name, each), os.path.join(path, each)) for each in sorted(names, reverse=True)]


def _target(path: str) -> str:
    return os.readlink(path) if os.path.islink(path) else ""


def _add(digest: Any, label: str, text: str) -> None:
    digest.update(f"{label}\0{text}\0".encode("utf-8", "surrogateescape"))


def _seen(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}"


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_ctime_ns}-{_seen(status)}"


def _content(file: str, status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would block
        return "no file"
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as opened:
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
    except PermissionError:  # the module may not need it; changes show in its time and size
        return f"a file that cannot be read: {_seen(status)}"
    return digest.hexdigest()
