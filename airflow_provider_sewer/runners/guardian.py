"""A process that outlives this one just long enough to end what this one started.

A worker can be killed with no chance to clean up: by the kernel, by an impatient supervisor, by
``kill -9``. The guardian waits on a pipe that only the worker holds open. A word on it means that all
is well; its end without a word means that the worker is gone, and the guardian ends the tree.

It waits as ``sh``, which costs about a millisecond, and becomes Python only when there is work to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

from airflow_provider_sewer.runners import tree

_WAIT_FOR_WORD = 'read -r word || exec "$@"'


class Guardian:
    """Ends everything that carries a mark, should this process die within the ``with`` block.

    :param mark: the mark (see :mod:`airflow_provider_sewer.runners.tree`).
    :param grace: seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, mark: str, grace: float) -> None:
        self._argv = [
            "/bin/sh", "-c", _WAIT_FOR_WORD, "sewer-guardian",
            sys.executable, "-m", __name__, mark, str(grace),
        ]  # fmt: skip

    def __enter__(self) -> Guardian:
        # In a session of its own, so that no signal meant for this process's group reaches it; with
        # this process's own import path, so that it finds this package wherever it came from.
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._process.communicate(b"done\n")


if __name__ == "__main__":
    tree.end(sys.argv[1], float(sys.argv[2]))
