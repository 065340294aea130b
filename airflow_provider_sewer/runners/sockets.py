"""Whether what this process has written to its sockets was read at their other ends.

Under Airflow a task's log goes through a socket to the task's supervisor, which may be busy with other things, such as
an API server that is away. What it has not read is lost when it ends.
"""

from __future__ import annotations

import array
import fcntl
import os
import stat
import termios
import time
from contextlib import suppress

# Seconds between two looks: a reader that has nothing else to do takes less.
_LOOK = 0.001


def all_read(patience: float) -> bool:
    """Wait until nothing is on its way in any socket of this process, and tell whether it came to that.

    :param patience: seconds to wait for it.
    """
    deadline = time.monotonic() + patience
    while any(map(_unread, _sockets())):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True


def _sockets() -> list[int]:
    found = []
    with suppress(OSError):  # there is no /proc
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # the descriptor of the listing itself, for one, is closed by now
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    found.append(int(name))
    return found


def _unread(descriptor: int) -> int:
    """Return how much memory holds what was written and not read: SIOCOUTQ of unix(7) and tcp(7) on Linux."""
    size = array.array("i", [0])
    with suppress(OSError):  # a listening socket has no such thing
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, size)
    return size[0]
