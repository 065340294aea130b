"""Atomic writing of files, also if the process is killed or the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress


def write_atomically(
    path: str, data: bytes, *, mode: int = 0o600, exact_mode: int | None = None, lasts: bool = False
) -> None:
    """Replace the file at a path atomically.

    A process that is killed meanwhile can leave a file beside it, whose name ends with a dot and eight hexadecimal
    digits.

    :param mode: the mode of the file, before the umask is applied.
    :param exact_mode: the mode of the file, independent of the umask.
    :param lasts: whether the file must survive a power failure right afterwards.
    :raises OSError: when it cannot be written; the old file is then unchanged.
    """
    scratch = f"{path}.{os.urandom(4).hex()}"  # unique among the writers of all hosts and threads
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            if exact_mode is not None:
                os.fchmod(descriptor, exact_mode)
            file.write(data)
            file.flush()
            if lasts:
                os.fsync(descriptor)
        os.replace(scratch, path)
    except FileExistsError:
        raise
    except BaseException as error:
        with suppress(OSError):
            os.unlink(scratch)
        if isinstance(error, OSError):
            error.filename = error.filename or path  # a failed write to an open file has no name
        raise
