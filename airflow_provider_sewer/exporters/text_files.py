"""Atomic reading and replacing of a user's text file."""

from __future__ import annotations

import os
import stat

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.size_limits import MAX_FILE_BYTES

FilePath = str | os.PathLike[str]


def read_text(file: FilePath) -> str | None:
    """Return the text of a file with unchanged line ends, or ``None`` if the file does not exist.

    :raises SewerError: when the file is not a regular file of UTF-8 text, or not writable.
    """
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            kind = "a directory" if os.path.isdir(file) else "not a regular file"
            raise SewerError(f"{os.fspath(file)} is {kind}; it is unchanged")
        # Opened for writing as well: a read-only file must not be replaced either.
        with open(file, "rb+") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise SewerError(f"{os.fspath(file)} has more than {MAX_FILE_BYTES:,} bytes; it is unchanged")
        return text.decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise SewerError(f"{os.fspath(file)}: byte {error.start} is not valid UTF-8; the file is unchanged") from None
    except (OSError, ValueError) as error:
        raise SewerError(f"{os.fspath(file)}: cannot be read and written: {_reason(error)}; it is unchanged") from None


def replace_text(file: FilePath, text: str) -> None:
    """Replace the content of a file, keeping its mode; create its folder if missing.

    The target of a symbolic link is replaced, not the link.

    :raises SewerError: when the file cannot be written; it is then unchanged.
    """
    target = os.path.realpath(file)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write_atomically(target, text.encode("utf-8"), mode=0o666, exact_mode=_mode(target), lasts=True)
    except OSError as error:
        raise SewerError(f"{os.fspath(file)}: cannot be written: {_reason(error)}; it is unchanged") from None


def _mode(file: FilePath) -> int | None:
    try:
        return stat.S_IMODE(os.stat(file).st_mode)
    except FileNotFoundError:
        return None


def _reason(error: Exception) -> object:
    return getattr(error, "strerror", None) or error
