"""Read and replace a text file that belongs to a person, so that it is whole at every moment."""

from __future__ import annotations

import os
import stat

from airflow_provider_sewer.core.atomic_file import write_atomically
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.size_limits import MAX_FILE_BYTES

FilePath = str | os.PathLike[str]


def read_text(file: FilePath) -> str | None:
    """Return the text of a file with its line ends as they are, or ``None`` where there is no file.

    :raises SewerError: when there is something that cannot be read as UTF-8 text, or not written to.
    """
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            what = "a directory" if os.path.isdir(file) else "no ordinary file"
            raise SewerError(f"{os.fspath(file)}: this is {what}; it was left alone")
        # Opened for writing as well: a file that was made read-only is not to be replaced either.
        with open(file, "rb+") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise SewerError(f"{os.fspath(file)}: this has more than {MAX_FILE_BYTES:,} bytes; it was left alone")
        return text.decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise SewerError(f"{os.fspath(file)}: byte {error.start} is no UTF-8 text; the file was left alone") from None
    except (OSError, ValueError) as error:
        raise SewerError(
            f"{os.fspath(file)}: cannot be read and written: {_reason(error)}; it was left alone"
        ) from None


def replace_text(file: FilePath, text: str) -> None:
    """Put this text in the place of the file, which keeps its mode; make its folder if need be.

    A symbolic link stays one: what it points at is replaced.

    :raises SewerError: when that cannot be done; the file is then what it was.
    """
    target = os.path.realpath(file)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write_atomically(target, text.encode("utf-8"), mode=0o666, exact_mode=_mode(target), lasts=True)
    except OSError as error:
        raise SewerError(f"{os.fspath(file)}: cannot be written: {_reason(error)}; it was left alone") from None


def _mode(file: FilePath) -> int | None:
    try:
        return stat.S_IMODE(os.stat(file).st_mode)
    except FileNotFoundError:
        return None


def _reason(error: Exception) -> object:
    return getattr(error, "strerror", None) or error
