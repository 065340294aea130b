"""Check whether the supervisor of this process has read all data that was written to it.

Under Airflow the log of a task, and that of a trigger, goes through a socket to the supervisor, which may be busy, for
example waiting for the API server. Data that it has not read is lost when it ends.
"""

from __future__ import annotations

import array
import fcntl
import os
import platform
import select
import socket
import struct
import termios
import time
from contextlib import suppress

# Seconds between two checks: an idle reader needs less.
_CHECK_INTERVAL = 0.001
# A supervisor creates all sockets to its child, and puts the one for requests at this descriptor (Airflow 3.3,
# `_reopen_std_io_handles` in airflow/sdk/execution_time/supervisor.py).
_REQUESTS = 0
# struct ucred of unix(7): pid, uid, gid
_CREDENTIALS, _NUMBER = struct.Struct("3i"), struct.Struct("i")


class SupervisorSockets:
    """The sockets to the supervisor of this process; none under ``airflow dags test``, which has no supervisor."""

    def __init__(self) -> None:
        supervisor = _creator(_REQUESTS)
        is_supervised = supervisor not in {None, os.getpid()}
        self._supervisor = supervisor if is_supervised else None
        self._descriptors = [each for each in _open_files() if _creator(each) == supervisor] if is_supervised else []

    def supervisor(self) -> str:
        """Return the supervisor's host, pid and start time; an empty string without a supervisor."""
        import psutil  # here, because a DAG file that only imports an operator does not need it

        if self._supervisor is None:
            return ""
        with suppress(psutil.Error):
            return f"{platform.node()} {self._supervisor} {psutil.Process(self._supervisor).create_time():.2f}"
        return ""

    def wait_until_drained(self, patience: float) -> bool:
        """Wait until the supervisor has read all data that is in the sockets now, and return whether it has.

        Only reading shrinks the memory of unread data. So the sum of its decreases is the amount read, also while other
        threads keep writing.

        :param patience: maximum seconds to wait.
        """
        deadline = time.monotonic() + patience
        seen = {each: _unread(each) for each in self._descriptors}
        left = {each: size for each, size in seen.items() if size}
        while left:
            if time.monotonic() > deadline:
                return False
            time.sleep(_CHECK_INTERVAL)
            for each in list(left):
                size = _unread(each)
                left[each] -= max(0, seen[each] - size)
                seen[each] = size
                if not size or left[each] <= 0:
                    del left[each]
        return not self._is_gone  # unread data is dropped when the supervisor ends

    @property
    def _is_gone(self) -> bool:
        poll = select.poll()
        for each in self._descriptors:
            poll.register(each, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))


def _open_files() -> list[int]:
    with suppress(OSError):  # there is no /proc
        return [int(name) for name in os.listdir("/proc/self/fd")]
    return []


def _creator(descriptor: int) -> int | None:
    """Return the process that created the Unix socket pair of a descriptor; ``None`` for any other file."""
    if _option(descriptor, socket.SO_DOMAIN, _NUMBER) != socket.AF_UNIX:
        return None
    return _option(descriptor, socket.SO_PEERCRED, _CREDENTIALS)


def _option(descriptor: int, option: int, value: struct.Struct) -> int | None:
    """Return the first number of an option of a socket; ``None`` for a file that is not a socket.

    A Python socket object would have to be closed, and may make the socket non-blocking for all its users.
    """
    import ctypes  # here, because a DAG file that only imports an operator does not need it

    buffer, size = ctypes.create_string_buffer(value.size), ctypes.c_uint(value.size)
    if ctypes.CDLL(None).getsockopt(descriptor, socket.SOL_SOCKET, option, buffer, ctypes.byref(size)):
        return None
    return int(value.unpack(buffer.raw)[0])


def _unread(descriptor: int) -> int:
    """Return the memory used by unread data: SIOCOUTQ of unix(7) on Linux."""
    size = array.array("i", [0])
    with suppress(OSError):  # it was closed
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, size)
    return size[0]
