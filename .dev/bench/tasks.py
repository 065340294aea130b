"""Cost of one task with an empty module."""

from __future__ import annotations

import statistics
import tempfile
import venv
from pathlib import Path

from bench.clock import python_of, run_side
from bench.rows import Figure, Row

_MODULE = "a task that runs `python -m empty`: `PythonModuleOperator`"
_FUNCTION = "a task that calls an empty function: `PythonModuleOperator`"
ROWS = {
    "task_bash": Row(_MODULE, "`BashOperator`", "ms"),
    "task_external": Row(_MODULE, "`ExternalPythonOperator`, of an empty function", "ms"),
    "task_external_without": Row(_MODULE, "the same with `expect_airflow=False`", "ms"),
    "task_function": Row(_FUNCTION, "`ExternalPythonOperator`", "ms"),
    "task_nothing": Row(_MODULE, "`PythonOperator` of an empty function: no process at all", "ms"),
}
HOW = "tasks: milliseconds a task in one process of `dag.test()`, medians of 7 runs of 20 tasks each"


def measure(*, tiny: bool = False) -> dict[str, Figure]:
    """Return the figures.

    :param tiny: one task each.
    """
    count, times = (1, 1) if tiny else (20, 7)
    with tempfile.TemporaryDirectory(prefix="sewer-bench-") as folder:
        python = bare_python(Path(folder))
        env = {
            "AIRFLOW_HOME": f"{folder}/airflow",
            "AIRFLOW__CORE__DAGS_FOLDER": f"{folder}/dags",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        found = run_side(python_of("airflow"), "tasks", python, count, times, env=env, cwd=Path(folder))
    ms = {kind: statistics.median(values) for kind, values in found.items()}
    return {
        "task_bash": Figure(ms["module"], ms["bash"]),
        "task_external": Figure(ms["module"], ms["external"]),
        "task_external_without": Figure(ms["module"], ms["external_without_airflow"]),
        "task_function": Figure(ms["function"], ms["external"]),
        "task_nothing": Figure(ms["module"], ms["nothing"]),
    }


def bare_python(folder: Path) -> Path:
    """Create an environment without packages, beside an empty module, and return its interpreter."""
    (folder / "empty.py").write_text("def nothing():\n    pass\n")
    venv.EnvBuilder(symlinks=True).create(folder / "bare")
    return folder / "bare" / "bin" / "python"
