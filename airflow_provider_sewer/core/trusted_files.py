"""Files and folders that no other Unix user can have written, and records that may hold anything.

A run directory, a ``.sewer`` folder or a cache may lie in a folder of many users, such as a scratch file system. Its
content decides what is run and what has succeeded. So each folder and file has to belong to the effective user and must
not be writable by others. Write access of a group is accepted for the user's private group (of the user's name, with no
other member), and for group 0, which containers use.

A file system decides who a process is: root is another user on NFS with root_squash. So where the owner is not the
effective user, a file that this process creates there shows whether that is the same user by another number. It also
shows whether the file system keeps modes at all.
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

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

#: Bytes that a record may have.
LARGEST_RECORD = 1024 * 1024
#: How deeply lists and objects in a record may be nested; and in a result, which can be part of a record.
_DEEPEST, DEEPEST_RESULT = 120, 100
_LONGEST_TEXT = 4096

#: What the system says where there is no such folder.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_OTHERS, _WORLD = 0o022, 0o002
#: Mode of folders that other users may read, and of those that they may not enter.
_READABLE, PRIVATE = 0o755, 0o700


class InvalidRecord(OSError):
    """A file is not what a record has to be: regular, small, and this user's own."""

    def __str__(self) -> str:
        return f"it {self.strerror}"


# -- Folders -----------------------------------------------------------------------------------------------------------


def check_own_folder(folder: str, field: str = "") -> None:
    """Refuse a folder in which another user could have put something; one that is missing is accepted.

    :param field: what the folder is for, for the message.
    :raises UntrustedPath: naming the folder and its owner.
    """
    why = _why_not_own(folder)
    if why:
        raise UntrustedPath(f"{field}: {folder} {why}" if field else f"{folder} {why}")


def _why_not_own(folder: str) -> str | None:
    try:
        status = os.lstat(folder)
    except OSError as error:
        return None if error.errno in _MISSING else f"cannot be looked at: {error.strerror}"
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link; put a directory in its place"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory; move it away"
    return why_foreign(folder, status)


def check_own_folders(base: str, folder: str, field: str = "") -> None:
    """Refuse a folder, or one on the way to it, in which another user could have put something.

    :param base: where the way begins; this folder may belong to others.
    :param folder: a folder below it.
    :param field: as for :func:`check_own_folder`.
    :raises UntrustedPath: likewise.
    """
    for path in _below(base, folder):
        check_own_folder(path, field)


def make_own_folders(base: str, folder: str, field: str = "") -> None:
    """Create a folder and those on the way to it, which others may read, and refuse those that others could write.

    :param base: where the way begins; it has to exist.
    :param folder: a folder below it.
    :param field: as for :func:`check_own_folder`.
    :raises UntrustedPath: likewise.
    :raises OSError: when one cannot be created.
    """
    for path in _below(base, folder):
        with suppress(FileExistsError):
            os.mkdir(path, _READABLE)
        check_own_folder(path, field)


def make_folder(folder: str) -> None:
    """Create a folder; a ``.sewer`` on the way, and all folders in that, have to belong to this user.

    :raises UntrustedPath: as :func:`make_own_folders` does.
    :raises OSError: when one cannot be created.
    """
    base, folder = own_part(folder)
    os.makedirs(base, exist_ok=True)
    make_own_folders(base, folder)


def own_part(folder: str) -> tuple[str, str]:
    """Return where the last ``.sewer`` on the way to a folder lies, and the folder; both the same without one."""
    folder = os.path.abspath(folder)
    before, found, _ = f"{folder}/".rpartition(f"/{OWN_FOLDER}/")
    return (before or "/", folder) if found else (folder, folder)


def _below(base: str, folder: str) -> list[str]:
    parts = PurePath(os.path.relpath(folder, base)).parts
    return [os.path.join(base, *parts[:length]) for length in range(1, len(parts) + 1)]


def why_foreign(path: str, status: os.stat_result, *, is_private: bool = True) -> str | None:
    """Return in which way another user could have written a file or folder; ``None`` if that is not possible.

    :param status: its status, links not followed.
    :param is_private: whether its mode counts; else the folder that it is in sees to that.
    """
    is_own = status.st_uid == os.geteuid()
    is_open = is_private and bool(status.st_mode & _OTHERS) and not _is_open_to_own_group(path, status)
    if is_own and not is_open:
        return None
    own = _status_of_own_file(path, status.st_dev)
    if not is_own and (own is None or own.st_uid != status.st_uid):
        return f"belongs to {_user(status.st_uid)}, not to {_user(os.geteuid())}; remove it, or use another folder"
    if is_open and (own is None or not own.st_mode & _OTHERS):  # else the file system keeps no modes
        mode = stat.S_IMODE(status.st_mode)
        return f"is writable by other users (mode {mode:04o}); check its content, then run chmod go-w on it"
    return None


#: By file system and user the status of a file that this process has created there.
_known: dict[tuple[int, int], os.stat_result] = {}


def _is_open_to_own_group(path: str, status: os.stat_result) -> bool:
    """Tell whether write access is only that of a group without other members."""
    if status.st_mode & _WORLD or not _is_own_group(status.st_gid, os.geteuid()):
        return False
    try:  # with an access control list, the group's bits are those of all who are in the list
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

    :param device: the file system; it is asked once.
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
    """Return what is in a regular file of any user, without waiting for a named pipe; links are followed.

    :param largest: bytes that it may have.
    :raises BadRecord: when it is not a regular file, or is larger.
    :raises OSError: when it cannot be read.
    """
    with _opened(path, os.O_RDONLY) as file:
        return _bounded(file, path, largest)


def open_own(path: str, *, is_private: bool = True) -> BinaryIO:
    """Open a regular file of this user for reading, without waiting for a named pipe.

    :param is_private: whether its mode counts; else the folder that it is in sees to that.
    :raises BadRecord: when it is a link, not a regular file, or could have been written by another user.
    :raises OSError: when it cannot be opened.
    """
    file = _opened(path, os.O_NOFOLLOW)
    try:
        if why := why_foreign(path, os.fstat(file.fileno()), is_private=is_private):
            raise InvalidRecord(errno.EPERM, why, path)
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
    """Open a regular file of this user for writing, without waiting for a named pipe; create it if it is missing.

    :param appends: whether its content stays.
    :raises BadRecord: when it is not a regular file, or belongs to another user.
    :raises OSError: when it cannot be opened.
    """
    file = _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, "ab")
    try:
        if why := why_foreign(path, os.fstat(file.fileno()), is_private=False):
            raise InvalidRecord(errno.EPERM, why, path)
        if not appends:
            os.ftruncate(file.fileno(), 0)
    except BaseException:
        file.close()
        raise
    return file


def read_own(path: str, *, largest: int = LARGEST_RECORD, is_private: bool = True) -> bytes:
    """Return what is in a small file of this user.

    :param largest: bytes that it may have.
    :param is_private: as for :func:`open_own`.
    :raises BadRecord: likewise, or when it is larger.
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
    """Return when a file of this user was last written, in nanoseconds.

    It is opened, so that a network file system asks its server.

    :raises OSError: when it is missing, or is not such a file.
    """
    with open_own(path, is_private=False) as file:
        return os.fstat(file.fileno()).st_mtime_ns


# -- What is in a record -----------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, *, deepest: int = _DEEPEST) -> Any:
    """Read JSON as its standard has it, without the NaN and Infinity that databases refuse, and not deeply nested.

    :param deepest: how deeply lists and objects may be nested.
    :raises ValueError: when it is something else.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _refuse_deep(value, deepest)
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name:.30} is no JSON value; write null or text")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        _refuse(digits)
    return number


def _refuse_deep(value: Any, deepest: int) -> None:
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
    """Tell whether a record is an object with values of these types; others may be in it as well.

    A float can be a whole number, and is finite. Text is printable, and not longer than a path.
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
