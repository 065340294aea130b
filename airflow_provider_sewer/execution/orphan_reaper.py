"""A process that outlives this one just long enough to end what this one started.

A worker can be killed with no chance to clean up: by the kernel, by an impatient supervisor, by
``kill -9``. The guardian waits on a pipe that only the worker holds open. A last word on it means that
all is well; its end without that word means that the worker is gone, and the guardian ends the tree.

It waits as ``sh``, which costs about a millisecond, and becomes Python only when there is work to do. What it has to
know by then, the roots of the trees that run (see :mod:`airflow_provider_sewer.execution.process_tree`), is written
to a file in
memory that it holds as well: so nobody has to wake it for each of them.
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

_WATCH = """
read -r word
[ "$word" = done ] || exec "$@"
"""


class OrphanReaper:
    """Ends everything that carries a mark, should this process die within the ``with`` block, and removes its files.

    It does so as well when the block ends with an error from outside, such as a second Ctrl-C: then
    nobody knows whether all was ended.

    Within the block, ``folder`` is one for this user alone, for what modules are given and what they leave.

    :param grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, grace: float) -> None:
        self._mark = new_tag()
        self._grace = grace
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        # In a session of its own, so that no signal meant for this process's group reaches it; with
        # this process's own import path, so that it finds this package wherever it came from.
        self._temporary = tempfile.TemporaryDirectory(prefix="sewer-", ignore_cleanup_errors=True)
        self.folder = self._temporary.name
        self._noted = _file_in_memory()
        becomes = (sys.executable, "-m", __name__, self._mark, str(self._grace), str(self._noted), self.folder)
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sewer-guardian", *becomes],
            bufsize=0,
            pass_fds=[self._noted],
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
        os.close(self._noted)
        self._temporary.cleanup()

    def child_tag(self) -> str:
        """Return a mark for one of several trees under guard."""
        return f"{self._mark}{next(self._numbers)}/"

    def register(self, root: int) -> None:
        """Take note of the root of a tree, which is found even if it loses its mark."""
        os.write(self._noted, b"+%d " % root)

    def unregister(self, root: int) -> None:
        """Forget a root, as long as nobody else can have its pid."""
        os.write(self._noted, b"-%d " % root)

    def end_all(self, grace: float = 0.0) -> None:
        """End everything under guard now.

        :param grace: seconds between SIGTERM and SIGKILL.
        """
        _end(self._mark, grace, self._noted)


def new_tag() -> str:
    """Return a mark that nothing else carries; below this process's own, if it is itself part of a tree."""
    return f"{os.environ.get(ATTEMPT_ID, '')}{os.urandom(16).hex()}/"


def _end(mark: str, grace: float, noted: int) -> None:
    # Imported when there is something to end: psutil takes as long as a short task's start.
    from airflow_provider_sewer.execution.process_tree import TreeTerminator

    size = os.fstat(noted).st_size
    TreeTerminator(mark, grace, roots_of(os.pread(noted, size, 0).decode())).run()


def _file_in_memory() -> int:
    """Return the descriptor of a file that nobody else can open."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("sewer-roots")
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())


def roots_of(noted: str) -> set[int]:
    """Return the roots that have been watched and not forgotten, of all that was noted, in order."""
    roots: set[int] = set()
    for word in noted.split():
        (roots.add if word[0] == "+" else roots.discard)(int(word[1:]))
    return roots


if __name__ == "__main__":
    _end(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    shutil.rmtree(sys.argv[4], ignore_errors=True)
