"""Import time of this package in a DAG file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.clock import Side, alternating, beside, python_of, run_side
from bench.rows import Figure, Row

_BASE = "importing `airflow.sdk`"
ROWS = {
    "import": Row("importing this package, `.task_group` and both operators after that", _BASE, "ms"),
    "import_bash": Row("the same", "importing `BashOperator` and `ExternalPythonOperator` after that", "ms"),
    "import_cosmos": Row("the same", "importing `DbtTaskGroup` of astronomer-cosmos after that", "ms"),
    "import_names": Row("importing this package alone, as a workflow file does", _BASE, "ms"),
}
HOW = "importing: CPU milliseconds, medians of 7 fresh interpreters"

_SDK = ("airflow.sdk", "airflow.sdk:DAG", "airflow.sdk:TaskGroup", "airflow.sdk:BaseOperator")
_OURS = (
    "airflow_provider_sewer",
    "airflow_provider_sewer.task_group",
    "airflow_provider_sewer.operators.module",
    "airflow_provider_sewer.operators.slurm",
)
_STANDARD = (
    "airflow.providers.standard.operators.bash:BashOperator",
    "airflow.providers.standard.operators.python:ExternalPythonOperator",
)


def measure(*, tiny: bool = False) -> dict[str, Figure]:
    """Return the figures.

    :param tiny: one interpreter each.
    """
    with tempfile.TemporaryDirectory(prefix="sewer-bench-") as folder:
        home = Path(folder)
        found = alternating(
            {
                "sdk": _imports("airflow", home, (), _SDK),
                "ours": _imports("airflow", home, _SDK, _OURS),
                "standard": _imports("airflow", home, _SDK, _STANDARD),
                "cosmos": _imports("cosmos", home, _SDK, ("cosmos:DbtTaskGroup",)),
                "names": _imports("airflow", home, (), ("airflow_provider_sewer",)),
            },
            1 if tiny else 7,
        )
    return {
        "import": beside(found["ours"], found["sdk"]),
        "import_bash": beside(found["ours"], found["standard"]),
        "import_cosmos": beside(found["ours"], found["cosmos"]),
        "import_names": beside(found["names"], found["sdk"]),
    }


def _imports(environment: str, home: Path, before: tuple[str, ...], counted: tuple[str, ...]) -> Side:
    """Return a side that measures imports in a fresh interpreter, after other imports."""

    def run() -> float:
        python, env = python_of(environment), {"AIRFLOW_HOME": str(home / environment)}
        return float(run_side(python, "imports", *before, "--", *counted, env=env, cwd=home)["ms"])

    return run
