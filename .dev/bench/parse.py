"""Cost of parsing a DAG file that expands a workflow file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from bench.clock import CannotRun, Side, alternating, beside, python_of, run_side
from bench.rows import Figure, Row

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = {
    "thousand": Row("1,000 tasks of a workflow file, tied as a tree", "a loop of 1,000 `BashOperator`s"),
    "flat": Row("1,000 tasks without an edge", "a loop of 1,000 `BashOperator`s"),
    "cosmos": Row("the tree", "astronomer-cosmos: 1,000 models of a manifest, as a TaskGroup"),
    "worker": Row("one task of the tree, as a worker builds it", "the tree"),
    "ten_thousand": Row("a tree of 10,000 tasks", "a loop of 10,000 `BashOperator`s"),
    "growth": Row("a tree of 10,000 tasks", "ten times that of 1,000"),
    "layers": Row("100 layers of 50 tasks, each tied to all of the next", "`BashOperator`s tied with `>>`"),
}
HOW = "parsing a DAG file, its imports done: CPU seconds, medians of 9 fresh processes (3 of 10,000 tasks, 2 of layers)"

_SEWER = """\
    from airflow.sdk import DAG
    from airflow_provider_sewer.task_group import sewer_task_group
    with DAG("bench", schedule=None) as dag:
        sewer_task_group("flow.py")
    """
_TREE = """\
    from airflow_provider_sewer import Task
    tasks = [Task(f"task_{i}", "steps.work", {"number": i, "verbose": True}) for i in range(COUNT)]
    for i in range(1, COUNT):
        tasks[(i - 1) // 2] >> tasks[i]
    """
_BASH_TREE = """\
    from airflow.sdk import DAG
    from airflow.providers.standard.operators.bash import BashOperator
    with DAG("bench", schedule=None) as dag:
        tasks = []
        for i in range(COUNT):
            task = BashOperator(task_id=f"task_{i}", bash_command=f"python -m steps.work --number {i} --verbose")
            if i:
                tasks[(i - 1) // 2] >> task
            tasks.append(task)
    """
_FLAT = """\
    from airflow_provider_sewer import Task
    for i in range(COUNT):
        Task(f"task_{i}", "steps.work", {"number": i, "verbose": True})
    """
_BASH_FLAT = """\
    from airflow.sdk import DAG
    from airflow.providers.standard.operators.bash import BashOperator
    with DAG("bench", schedule=None) as dag:
        for i in range(COUNT):
            BashOperator(task_id=f"task_{i}", bash_command=f"python -m steps.work --number {i} --verbose")
    """
_LAYERS = """\
    from airflow_provider_sewer import Task
    layers = [
        [Task(f"task_{i}_{k}", "steps.work", {"number": k, "verbose": True}) for k in range(WIDTH)]
        for i in range(COUNT)
    ]
    for before, after in zip(layers, layers[1:]):
        for task in before:
            task >> after
    """
_BASH_LAYERS = """\
    from airflow.sdk import DAG
    from airflow.providers.standard.operators.bash import BashOperator
    with DAG("bench", schedule=None) as dag:
        before = []
        for i in range(COUNT):
            layer = [
                BashOperator(task_id=f"task_{i}_{k}", bash_command=f"python -m steps.work --number {k} --verbose")
                for k in range(WIDTH)
            ]
            for task in before:
                task >> layer
            before = layer
    """
_COSMOS = """\
    from airflow.sdk import DAG
    from cosmos import DbtTaskGroup, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
    from cosmos.constants import LoadMode, TestBehavior
    with DAG("bench", schedule=None) as dag:
        DbtTaskGroup(
            group_id="models",
            project_config=ProjectConfig(manifest_path="manifest.json", project_name="bench"),
            profile_config=ProfileConfig("bench", "dev", profiles_yml_filepath="profiles.yml"),
            execution_config=ExecutionConfig(dbt_project_path="."),
            render_config=RenderConfig(load_method=LoadMode.DBT_MANIFEST, test_behavior=TestBehavior.NONE),
        )
    """

_PROFILES = "bench: {target: dev, outputs: {dev: {type: sqlite}}}\n"
_PROJECT = "{name: bench, profile: bench, version: '1.0'}\n"


def measure(*, tiny: bool = False) -> dict[str, Figure]:
    """Return the figures.

    :param tiny: few tasks, to check that it runs.
    """
    thousand, ten_thousand, layers, width = (10, 10, 3, 3) if tiny else (1_000, 10_000, 100, 50)
    often, seldom, twice = (1, 1, 1) if tiny else (9, 3, 2)
    with tempfile.TemporaryDirectory(prefix="sewer-bench-") as folder:
        home = Path(folder)
        small = alternating(
            {
                "sewer": _sewer(home / "sewer", _TREE, thousand),
                "bash": _bash(home / "bash", _BASH_TREE, thousand),
                "sewer flat": _sewer(home / "sewer-flat", _FLAT, thousand),
                "bash flat": _bash(home / "bash-flat", _BASH_FLAT, thousand),
                "cosmos": _cosmos(home / "cosmos", thousand),
                "worker": _sewer(home / "worker", _TREE, thousand, running="workflow.task_1"),
            },
            often,
        )
        more = {
            "sewer": _sewer(home / "sewer-large", _TREE, ten_thousand),
            "bash": _bash(home / "bash-large", _BASH_TREE, ten_thousand),
        }
        large = small if tiny else alternating(more, seldom)  # the sizes are equal
        wide = alternating(
            {
                "sewer": _sewer(home / "sewer-wide", _LAYERS, layers, width),
                "bash": _bash(home / "bash-wide", _BASH_LAYERS, layers, width),
            },
            twice,
        )
    return {
        "thousand": beside(small["sewer"], small["bash"]),
        "flat": beside(small["sewer flat"], small["bash flat"]),
        "cosmos": beside(small["sewer"], small["cosmos"]),
        "worker": beside(small["worker"], small["sewer"]),
        "ten_thousand": beside(large["sewer"], large["bash"]),
        "growth": beside(large["sewer"], small["sewer"], times=ten_thousand / thousand),
        "layers": beside(wide["sewer"], wide["bash"]),
    }


def _side(
    folder: Path,
    environment: str,
    files: Callable[[int, int], dict[str, str]],
    count: int,
    width: int = 1,
    running: str = "",
) -> Side:
    """Return a side that parses a DAG file and checks its number of tasks.

    :param files: returns the DAG file and the files beside it.
    :param running: the id of the task whose worker parses the file, which creates only this task.
    """
    for size, place in (((count, width), folder / "dag"), ((2, min(2, width)), folder / "warm-up")):
        place.mkdir(parents=True)
        for name, text in files(*size).items():
            (place / name).write_text(dedent(text))

    def run() -> float:
        dags = folder / "dag" / "dag.py", folder / "warm-up" / "dag.py"
        worker = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "bench", "_AIRFLOW_PARSING_CONTEXT_TASK_ID": running}
        env = _quiet(folder) | (worker if running else {})
        found = run_side(python_of(environment), "parse", *dags, env=env, cwd=folder)
        wanted = 1 if running else count * width
        if found["tasks"] < wanted or (running and found["tasks"] > wanted):
            raise CannotRun(f"it made {found['tasks']:,} of {wanted:,} tasks")
        return float(found["seconds"])

    return run


def _sewer(folder: Path, flow: str, count: int, width: int = 1, running: str = "") -> Side:
    return _side(
        folder,
        "airflow",
        lambda *size: {"dag.py": _SEWER, "flow.py": _counted(flow, *size)},
        count,
        width,
        running,
    )


def _bash(folder: Path, dag: str, count: int, width: int = 1) -> Side:
    return _side(folder, "airflow", lambda *size: {"dag.py": _counted(dag, *size)}, count, width)


def _cosmos(folder: Path, count: int) -> Side:
    beside = {"dag.py": _COSMOS, "profiles.yml": _PROFILES, "dbt_project.yml": _PROJECT}
    return _side(folder, "cosmos", lambda size, _: {**beside, "manifest.json": _manifest(size)}, count)


def _counted(text: str, count: int, width: int) -> str:
    return f"COUNT, WIDTH = {count}, {width}\n{dedent(text)}"


def _manifest(count: int) -> str:
    """Return the parts of a `dbt parse` manifest that cosmos reads, with the same tree as the other sides."""
    nodes = {
        f"model.bench.task_{i}": {
            "unique_id": f"model.bench.task_{i}",
            "name": f"task_{i}",
            "resource_type": "model",
            "package_name": "bench",
            "original_file_path": f"models/task_{i}.sql",
            "depends_on": {"nodes": [f"model.bench.task_{(i - 1) // 2}"] if i else []},
            "config": {"materialized": "view", "tags": [], "meta": {}},
            "tags": [],
            "fqn": ["bench", f"task_{i}"],
        }
        for i in range(count)
    }
    return json.dumps({"metadata": {"project_name": "bench"}, "nodes": nodes, "sources": {}, "exposures": {}})


def _quiet(folder: Path) -> dict[str, str]:
    return {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
        "AIRFLOW__COSMOS__ENABLE_CACHE": "False",
    }
