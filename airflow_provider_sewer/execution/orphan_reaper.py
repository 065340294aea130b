"""Child process that ends the process trees of this process if this process dies.

A worker can be killed without cleanup: by the kernel, by its supervisor, by ``kill -9``. The reaper waits on a pipe
that only the worker holds open. A final message on it means a clean exit; its end without that message means that the
worker has died, and the reaper ends the trees.

It waits as ``sh``, which costs about a millisecond, and becomes Python only if it has to end trees. The roots of the
running trees (see :mod:`airflow_provider_sewer.execution.process_tree`) are written to a file in memory that it shares,
so that it need not be woken for each of them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import SewerError

if TYPE_CHECKING:
    from typing import Self

_WAIT = """
read -r word
[ "$word" = done ] || exec "$@"
"""


class OrphanReaper:
    """Reaper of all processes with a tag, and of their files, if this process dies within the ``with`` block.

    It also acts when the block ends with an external error, such as a second Ctrl-C: then it is unknown whether all
    processes have ended.

    Within the block, ``folder`` is a private folder of this user, for the arguments and the results of modules.

    :param grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, grace: float) -> None:
        self._tag = new_tag()
        self._grace = grace
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        # In its own session, so that signals to this process's group do not reach it; with this process's import
        # path, so that it finds this package.
        self._temporary = tempfile.TemporaryDirectory(prefix="sewer-", ignore_cleanup_errors=True)
        self.folder = self._temporary.name
        self._roots = _file_in_memory()
        becomes = (sys.executable, "-m", __name__, self._tag, str(self._grace), str(self._roots), self.folder)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WAIT, "sewer-guardian", *becomes],
            bufsize=0,
            pass_fds=[self._roots],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            start_new_session=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        is_well = kind is None or issubclass(kind, SewerError)
        self._process.communicate(b"done\n" if is_well else None)
        os.close(self._roots)
        self._temporary.cleanup()

    def child_tag(self) -> str:
        """Return the tag of a new tree to watch."""
        return f"{self._tag}{next(self._numbers)}/"

    def register(self, root: int) -> None:
        """Record the root of a tree, so that it is found even if it loses its tag."""
        os.write(self._roots, b"+%d " % root)

    def unregister(self, root: int) -> None:
        """Remove a root from the record, before its pid can be reused."""
        os.write(self._roots, b"-%d " % root)

    def end_all(self, grace: float = 0.0) -> None:
        """End all watched trees now.

        :param grace: seconds between SIGTERM and SIGKILL.
        """
        _end(self._tag, grace, self._roots)


def new_tag() -> str:
    """Return a unique tag; it begins with this process's own tag, if it is itself part of a tree."""
    return f"{os.environ.get(ATTEMPT_ID, '')}{os.urandom(16).hex()}/"


def _end(tag: str, grace: float, roots_file: int) -> None:
    # Imported only here: the import of psutil takes as long as the start of a short task.
    from airflow_provider_sewer.execution.process_tree import TreeTerminator

    size = os.fstat(roots_file).st_size
    TreeTerminator(tag, grace, roots_of(os.pread(roots_file, size, 0).decode())).run()


def _file_in_memory() -> int:
    """Return the descriptor of a file that no other process can open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("sewer-roots")
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def roots_of(record: str) -> set[int]:
    """Return the roots that were registered and not unregistered since, from the record in order."""
    roots: set[int] = set()
    for word in record.split():
        (roots.add if word[0] == "+" else roots.discard)(int(word[1:]))
    return roots


if __name__ == "__main__":
    _end(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    shutil.rmtree(sys.argv[4], ignore_errors=True)
