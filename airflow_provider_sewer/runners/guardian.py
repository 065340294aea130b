"""A process that outlives this one just long enough to end what this one started.

A worker can be killed with no chance to clean up: by the kernel, by an impatient supervisor, by
``kill -9``. The guardian waits on a pipe that only the worker holds open. A last word on it means that
all is well; its end without that word means that the worker is gone, and the guardian ends the tree.

It waits as ``sh``, which costs about a millisecond, and becomes Python only when there is work to do.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.environment import ATTEMPT_ID
from airflow_provider_sewer.core.errors import SewerError

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Self

# The roots of the trees (see airflow_provider_sewer.runners.tree) that are running right now are kept
# between blanks, so that each can be found and taken out again.
_WATCH = """
roots=' '
while read -r word; do
    case $word in
        done) exit ;;
        +*) roots="$roots${word#+} " ;;
        -*) case $roots in *" ${word#-} "*) roots="${roots%% ${word#-} *} ${roots#* ${word#-} }" ;; esac ;;
    esac
done
exec "$@" $roots
"""


class Guardian:
    """Ends everything that carries a mark, should this process die within the ``with`` block.

    It does so as well when the block ends with an error from outside, such as a second Ctrl-C: then
    nobody knows whether all was ended.

    :param grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, grace: float) -> None:
        self._mark = new_mark()
        self._grace = grace
        self._numbers = itertools.count(1)
        self._roots: set[int] = set()

    def __enter__(self) -> Self:
        # In a session of its own, so that no signal meant for this process's group reaches it; with
        # this process's own import path, so that it finds this package wherever it came from.
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sewer-guardian", sys.executable, "-m", __name__, self._mark, str(self._grace)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            start_new_session=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, SewerError):
            self._say("done")
        self._process.communicate()

    def submark(self) -> str:
        """Return a mark for one of several trees under guard."""
        return f"{self._mark}{next(self._numbers)}/"

    def watch(self, root: int) -> None:
        """Take note of the root of a tree, which is found even if it loses its mark."""
        self._roots.add(root)
        self._say(f"+{root}")

    def forget(self, root: int) -> None:
        """Forget a root, as long as nobody else can have its pid."""
        self._roots.discard(root)
        self._say(f"-{root}")

    def end_all(self, grace: float = 0.0) -> None:
        """End everything under guard now.

        :param grace: seconds between SIGTERM and SIGKILL.
        """
        _end(self._mark, grace, set(self._roots))

    def _say(self, word: str) -> None:
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{word}\n".encode())


def new_mark() -> str:
    """Return a mark that nothing else carries; below this process's own, if it is itself part of a tree."""
    return f"{os.environ.get(ATTEMPT_ID, '')}{os.urandom(16).hex()}/"


def _end(mark: str, grace: float, roots: Collection[int] = ()) -> None:
    # Imported when there is something to end: psutil takes as long as a short task's start.
    from airflow_provider_sewer.runners.tree import Ending

    Ending(mark, grace, roots).run()


if __name__ == "__main__":
    _end(sys.argv[1], float(sys.argv[2]), list(map(int, sys.argv[3:])))
