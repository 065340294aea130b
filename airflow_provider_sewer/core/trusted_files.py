"""Checks that no other Unix user can have written a file or folder, and parsing of untrusted records.

A job directory, a ``.sewer`` folder or a cache may be in a folder of many users, such as a scratch file system. Its
content decides which code runs and which tasks have succeeded. Therefore each folder and file must belong to the
effective user and must not be writable by others. Write access of a group is accepted for the user's private group (of
the user's name, without other members), and for group 0, which containers use.

The file system maps user ids: root is another user on NFS with root_squash. If the owner is not the effective user, a
file that this process creates there shows whether the file system maps the user to that id. It also shows whether the
file system keeps modes at all.
"""

from __future__ import annotations

import errno
import grp
import json
import math
import os
import pwd
import stat
from contextlib import suppress
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn, cast

from airflow_provider_sewer.core.errors import UntrustedPath
from airflow_provider_sewer.core.paths import OWN_FOLDER
from airflow_provider_sewer.core.size_limits import DEEPEST_RECORD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

#: Maximum size of a record in bytes.
LARGEST_RECORD = 1024 * 1024
_LONGEST_TEXT = 4096

#: Error numbers for a missing folder.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_OTHERS, _WORLD = 0o022, 0o002
#: Modes of folders that other users may read, and of those that they may not enter.
_READABLE, PRIVATE = 0o755, 0o700
_GIT_IGNORE = ".gitignore"


class InvalidRecord(OSError):
    """A file is not a valid record: a regular, small file of this user."""

    def __str__(self) -> str:
        return f"it {self.strerror}"


# -- Folders -----------------------------------------------------------------------------------------------------------


def check_own_folder(folder: str, field: str = "") -> None:
    """Reject a folder to which another user could have added files; a missing one is accepted.

    :param field: use of the folder, for the message.
    :raises UntrustedPath: naming the folder and its owner.
    """
    reason = _untrusted_reason(folder)
    if reason:
        raise UntrustedPath(f"{field}: {folder} {reason}" if field else f"{folder} {reason}")


def _untrusted_reason(folder: str) -> str | None:
    try:
        status = os.lstat(folder)
    except OSError as error:
        return None if error.errno in _MISSING else f"cannot be accessed: {error.strerror}"
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link; put a directory in its place"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory; move it away"
    return foreign_reason(folder, status)


def check_own_folders(base: str, folder: str, field: str = "") -> None:
    """Reject a folder, or one of its parents below ``base``, to which another user could have added files.

    :param base: the first parent, which may belong to others.
    :param folder: a folder below it.
    :param field: as for :func:`check_own_folder`.
    :raises UntrustedPath: likewise.
    """
    for path in _below(base, folder):
        check_own_folder(path, field)


def make_own_folders(base: str, folder: str, field: str = "") -> None:
    """Create a folder and its parents, readable by others, and reject folders that others could write.

    :param base: the first parent, which must exist.
    :param folder: a folder below it.
    :param field: as for :func:`check_own_folder`.
    :raises UntrustedPath: likewise.
    :raises OSError: when one cannot be created.
    """
    for path in _below(base, folder):
        with suppress(FileExistsError):
            os.mkdir(path, _READABLE)
            _ignore_in_git(path)
        check_own_folder(path, field)


def make_private_folders(folder: str) -> None:
    """Create a folder and its missing parents, each for this user alone.

    :raises OSError: when one cannot be created.
    """
    path = PurePath(folder)
    for part in (*reversed(path.parents), path):
        if not os.path.isdir(part):
            with suppress(FileExistsError):  # another process was quicker
                os.mkdir(part, PRIVATE)
                _ignore_in_git(str(part))


def _ignore_in_git(folder: str) -> None:
    """Have git ignore a new folder ``.sewer``; other folders are left alone."""
    if os.path.basename(folder) == OWN_FOLDER:
        with suppress(OSError):
            descriptor = os.open(os.path.join(folder, _GIT_IGNORE), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(descriptor, "w") as file:
                file.write("*\n")


def make_folder(folder: str) -> None:
    """Create a folder; if it is in a ``.sewer`` folder, that one and all folders below must belong to this user.

    :raises UntrustedPath: as :func:`make_own_folders` does.
    :raises OSError: when one cannot be created.
    """
    base, folder = own_part(folder)
    os.makedirs(base, exist_ok=True)
    make_own_folders(base, folder)


def own_part(folder: str) -> tuple[str, str]:
    """Return the parent of the last ``.sewer`` in a path, and the path; the path twice if there is none."""
    folder = os.path.abspath(folder)
    parent, found, _ = f"{folder}/".rpartition(f"/{OWN_FOLDER}/")
    return (parent or "/", folder) if found else (folder, folder)


def _below(base: str, folder: str) -> list[str]:
    parts = PurePath(os.path.relpath(folder, base)).parts
    return [os.path.join(base, *parts[:length]) for length in range(1, len(parts) + 1)]


def foreign_reason(path: str, status: os.stat_result, *, is_private: bool = True) -> str | None:
    """Return how another user could have written a file or folder; ``None`` if that is not possible.

    :param status: its status, links not followed.
    :param is_private: whether to check its mode; otherwise the mode of its folder protects it.
    """
    is_own = status.st_uid == os.geteuid()
    is_open = is_private and bool(status.st_mode & _OTHERS) and not _is_open_to_own_group(path, status)
    if is_own and not is_open:
        return None
    own = _status_of_own_file(path, status.st_dev)
    if not is_own and (own is None or own.st_uid != status.st_uid):
        return f"belongs to {_user(status.st_uid)}, not to {_user(os.geteuid())}; remove it, or use another folder"
    if is_open and (own is None or not own.st_mode & _OTHERS):  # otherwise the file system keeps no modes
        mode = stat.S_IMODE(status.st_mode)
        return f"is writable by other users (mode {mode:04o}); check its content, then run chmod go-w on it"
    return None


#: Status of a file that this process has created, by file system and user.
_known: dict[tuple[int, int], os.stat_result] = {}


def _is_open_to_own_group(path: str, status: os.stat_result) -> bool:
    """Return whether write access is limited to a group without other members."""
    if status.st_mode & _WORLD or not _is_own_group(status.st_gid, os.geteuid()):
        return False
    try:  # with an access control list, the group's bits are the mask of all its entries
        return "system.posix_acl_access" not in os.listxattr(path, follow_symlinks=False)
    except (OSError, AttributeError):  # no such lists on this file system, or on this platform
        return True


@lru_cache(maxsize=32)
def _is_own_group(gid: int, uid: int) -> bool:
    if gid == 0:
        return True
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(uid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _status_of_own_file(path: str, device: int) -> os.stat_result | None:
    """Return the status of a file that this process creates beside a path or in it; ``None`` if it cannot.

    :param device: the file system; the result is cached for it.
    """
    if (known := _known.get((device, os.geteuid()))) is not None:
        return known
    for folder in (os.path.dirname(path) or ".", path):
        scratch = os.path.join(folder, f".sewer-{os.urandom(8).hex()}.tmp")
        with suppress(OSError):
            descriptor = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                status = os.fstat(descriptor)
                return _known.setdefault((status.st_dev, os.geteuid()), status)
            finally:
                os.close(descriptor)
                with suppress(OSError):
                    os.unlink(scratch)
    return None


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


# -- Files -------------------------------------------------------------------------------------------------------------


def read_regular(path: str, *, largest: int) -> bytes:
    """Return the content of a regular file of any user, without blocking on a named pipe; links are followed.

    :param largest: maximum size in bytes.
    :raises InvalidRecord: when it is not a regular file, or is larger.
    :raises OSError: when it cannot be read.
    """
    with _opened(path, os.O_RDONLY) as file:
        return _bounded(file, path, largest)


def open_own(path: str, *, is_private: bool = True) -> BinaryIO:
    """Open a regular file of this user for reading, without blocking on a named pipe.

    :param is_private: whether to check its mode; otherwise the mode of its folder protects it.
    :raises InvalidRecord: when it is a link, not a regular file, or could have been written by another user.
    :raises OSError: when it cannot be opened.
    """
    file = _opened(path, os.O_NOFOLLOW)
    try:
        if reason := foreign_reason(path, os.fstat(file.fileno()), is_private=is_private):
            raise InvalidRecord(errno.EPERM, reason, path)
    except BaseException:
        file.close()
        raise
    return file


def _opened(path: str, flags: int, mode: str = "rb") -> BinaryIO:
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise InvalidRecord(errno.ELOOP, "is a symbolic link", path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidRecord(errno.EINVAL, "is not a regular file", path)
    return cast("BinaryIO", os.fdopen(descriptor, mode))


def open_own_to_write(path: str, *, appends: bool) -> BinaryIO:
    """Open a regular file of this user for writing, without blocking on a named pipe; create it if it is missing.

    :param appends: whether to keep its content.
    :raises InvalidRecord: when it is not a regular file, or belongs to another user.
    :raises OSError: when it cannot be opened.
    """
    file = _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, "ab")
    try:
        if reason := foreign_reason(path, os.fstat(file.fileno()), is_private=False):
            raise InvalidRecord(errno.EPERM, reason, path)
        if not appends:
            os.ftruncate(file.fileno(), 0)
    except BaseException:
        file.close()
        raise
    return file


def read_own(path: str, *, largest: int = LARGEST_RECORD, is_private: bool = True) -> bytes:
    """Return the content of a small file of this user.

    :param largest: maximum size in bytes.
    :param is_private: as for :func:`open_own`.
    :raises InvalidRecord: likewise, or when it is larger.
    :raises OSError: when it cannot be read.
    """
    with open_own(path, is_private=is_private) as file:
        return _bounded(file, path, largest)


def _bounded(file: BinaryIO, path: str, largest: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    data = file.read(largest + 1) if size <= largest else b""
    size = max(size, len(data))  # it may grow meanwhile
    if size > largest:
        raise InvalidRecord(errno.EFBIG, f"is {size:,} bytes; keep large values in a file and give its path", path)
    return data


def modified(path: str) -> int:
    """Return the time of the last write to a file of this user, in nanoseconds.

    The file is opened, so that a network file system asks its server.

    :raises OSError: when it is missing, or is not a regular file of this user.
    """
    with open_own(path, is_private=False) as file:
        return os.fstat(file.fileno()).st_mtime_ns


# -- Content of records ------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, *, deepest: int = DEEPEST_RECORD) -> Any:
    """Parse standard JSON, without NaN and Infinity, which databases reject, and with limited nesting.

    :param deepest: maximum nesting of lists and objects.
    :raises ValueError: when it is not valid.
    """
    try:
        value = json.loads(text, parse_constant=_reject, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _reject_deep(value, deepest)
    return value


def _reject(name: str) -> NoReturn:
    raise ValueError(f"{name:.30} is not a JSON value; write null or text")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        _reject(digits)
    return number


def _reject_deep(value: Any, deepest: int) -> None:
    level = [value]
    for _ in range(deepest):
        level = [
            item
            for each in level
            if isinstance(each, (dict, list))
            for item in (each.values() if isinstance(each, dict) else each)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"it is nested too deeply; lists and objects can be nested {deepest} times")


def has_types(fields: Any, types: Mapping[str, type]) -> bool:
    """Return whether a record is an object with values of these types; further keys are ignored.

    A float can be a whole number, and must be finite. Text must be printable, and not longer than a path.
    """
    return isinstance(fields, dict) and all(
        name in fields and _is_a(fields[name], kind) for name, kind in types.items()
    )


def _is_a(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str) and len(value) <= _LONGEST_TEXT and value.isprintable()
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        return False
    return not isinstance(value, (int, float)) or abs(value) < 2**63
