"""Write a file whole or not at all, whatever ends the process or fills the disk meanwhile."""

from __future__ import annotations

import os
from contextlib import suppress


def write_atomically(
    path: str, data: bytes, *, mode: int = 0o600, exact_mode: int | None = None, lasts: bool = False
) -> None:
    """Put a file with this content in the place of what is at a path.

    A process that is killed meanwhile can leave a file beside it, with a dot and eight hexadecimal digits at the end.

    :param mode: the mode of the file, less what the umask takes away.
    :param exact_mode: the mode of the file whatever the umask is, if given.
    :param lasts: whether it has to be there even if the machine goes down the moment after.
    :raises OSError: when that cannot be done; what was at the path is still there.
    """
    scratch = f"{path}.{os.urandom(4).hex()}"  # of this writer alone, among all hosts and threads
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
            error.filename = error.filename or path  # a write to an open file names none
        raise
