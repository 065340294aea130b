"""Print the functions of the package that a value passes on its way through one Slurm task: `make walk`.

The task runs under `dag.test()` with the local backend, deferred. A function counts if an argument holds the value:
itself, or as an item or attribute up to DEPTH levels down. Few functions in few files make the package easy to follow.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

#: Value of the parameter and beginning of the job's id, from the start of the run on; product, from the DAG file on.
PARAMETER, JOB_ID, PRODUCT = "walk-7531-value", "local-", "walk-7531.txt"
#: Levels of items and attributes that are searched.
DEPTH = 3
#: It runs for some seconds, so that the task is deferred.
MODULE = """
import sys, time
time.sleep(4)
if "--out" in sys.argv:
    open(sys.argv[sys.argv.index("--out") + 1], "w").close()
print("done")
"""


class Walk:
    """Profile function that records calls with a value among their arguments.

    :param value: the text to look for.
    :param root: the folder of the package.
    """

    def __init__(self, value: str, root: str) -> None:
        self.value = value
        self.root = root
        self.calls: Counter[tuple[str, str]] = Counter()
        self.is_on = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Count a call."""
        code = frame.f_code
        if not self.is_on or event != "call" or not code.co_filename.startswith(self.root) or code.co_name[0] == "<":
            return
        count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
        if any(self.is_in(frame.f_locals.get(name), DEPTH) for name in code.co_varnames[:count]):
            self.calls[code.co_filename.removeprefix(self.root), code.co_qualname] += 1

    def is_in(self, value: Any, depth: int) -> bool:
        """Return whether a value holds the text."""
        if isinstance(value, (str, bytes)):
            return self.value in value if isinstance(value, str) else self.value.encode() in value
        items: list[Any] = []
        if isinstance(value, dict):
            items = [*value, *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            items = [*value]
        elif type(value).__module__.startswith("airflow_provider_sewer"):
            items = [*getattr(value, "__dict__", {}).values()]
        return depth > 0 and any(self.is_in(item, depth - 1) for item in items)


def main() -> None:
    """Print each walk."""
    home = Path(tempfile.mkdtemp(prefix="walk-"))
    os.environ |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "XDG_CACHE_HOME": str(home)}
    try:
        follow("parameter", PARAMETER, home)
        follow("job_id", JOB_ID, home)
        follow("product", PRODUCT, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def follow(name: str, value: str, home: Path) -> None:
    """Run the task and print the walk of its parameter, of the id of its job or of the path of its product."""
    # Imported here: Airflow reads its home when it is imported.
    from airflow.sdk import DAG
    from airflow.utils.db import initdb

    from airflow_provider_sewer import Product, testing
    from airflow_provider_sewer.operators.slurm import SlurmModuleOperator

    initdb()
    (home / "walk_module.py").write_text(MODULE)
    walk = Walk(value, f"{Path(testing.__file__).parent}{os.sep}")
    walk.is_on = name == "product"
    threading.setprofile(walk)
    sys.setprofile(walk)
    with DAG(f"walk_{name}", schedule=None) as dag:
        SlurmModuleOperator(
            task_id="job", module="walk_module", python=sys.executable, env={"PYTHONPATH": str(home)},
            parameters_and_flags={"out": Product(value)} if name == "product" else {"n": PARAMETER}, workdir=str(home),
            cluster="local", deferrable=True, run_dir=str(home / "runs"), poll_interval=0.5, max_poll_interval=1,
        )  # fmt: skip
    walk.is_on = False
    testing._register(dag)
    walk.is_on = True
    state = dag.test().state
    sys.setprofile(None)
    threading.setprofile(None)
    for (file, function), count in walk.calls.items():
        print(f"{count:5} {file}: {function}")
    files = {file for file, _ in walk.calls}
    print(f"{name} ({state}): {walk.calls.total()} calls of {len(walk.calls)} functions in {len(files)} files\n")


if __name__ == "__main__":
    main()
