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

_LOOP = "a loop of 1,000 `BashOperator`s"
ROWS = {
    "tree": Row("1,000 tasks of a workflow file, tied as a tree", _LOOP, at_most=1),
    "chain": Row("1,000 tasks tied as a chain", _LOOP, at_most=1),
    "flat": Row("1,000 tasks without an edge", _LOOP, at_most=1),
    "tree again": Row("the tree, its workflow from the cache", _LOOP, at_most=1),
    "chain again": Row("the chain, its workflow from the cache", _LOOP, at_most=1),
    "flat again": Row("the tasks without an edge, their workflow from the cache", _LOOP, at_most=1),
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
_CHAIN = """\
    from airflow_provider_sewer import Task
    before = None
    for i in range(COUNT):
        task = Task(f"task_{i}", "steps.work", {"number": i, "verbose": True})
        if before:
            before >> task
        before = task
    """
_BASH_CHAIN = """\
    from airflow.sdk import DAG
    from airflow.providers.standard.operators.bash import BashOperator
    with DAG("bench", schedule=None) as dag:
        before = None
        for i in range(COUNT):
            task = BashOperator(task_id=f"task_{i}", bash_command=f"python -m steps.work --number {i} --verbose")
            if before:
                before >> task
            before = task
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
#: Workflow files of 1,000 tasks, and DAG files with the same tasks.
_SHAPES = {"tree": (_TREE, _BASH_TREE), "chain": (_CHAIN, _BASH_CHAIN), "flat": (_FLAT, _BASH_FLAT)}
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
        sides = {
            "cosmos": _cosmos(home / "cosmos", thousand),
            "worker": _sewer(home / "worker", _TREE, thousand, running="workflow.task_1"),
        }
        for shape, (flow, dag) in _SHAPES.items():
            sides |= {
                shape: _sewer(home / shape, flow, thousand),
                f"{shape} again": _sewer(home / f"{shape}-again", flow, thousand, again=True),
                f"bash {shape}": _bash(home / f"bash-{shape}", dag, thousand),
            }
        small = alternating(sides, often)
        more = {
            "tree": _sewer(home / "sewer-large", _TREE, ten_thousand),
            "bash tree": _bash(home / "bash-large", _BASH_TREE, ten_thousand),
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
        **{shape: beside(small[shape], small[f"bash {shape}"]) for shape in _SHAPES},
        **{f"{shape} again": beside(small[f"{shape} again"], small[f"bash {shape}"]) for shape in _SHAPES},
        "cosmos": beside(small["tree"], small["cosmos"]),
        "worker": beside(small["worker"], small["tree"]),
        "ten_thousand": beside(large["tree"], large["bash tree"]),
        "growth": beside(large["tree"], small["tree"], times=ten_thousand / thousand),
        "layers": beside(wide["sewer"], wide["bash"]),
    }


def _side(
    folder: Path,
    environment: str,
    files: Callable[[int, int], dict[str, str]],
    count: int,
    width: int = 1,
    running: str = "",
    *,
    again: bool = False,
) -> Side:
    """Return a side that parses a DAG file and checks its number of tasks.

    :param files: returns the DAG file and the files beside it.
    :param running: the id of the task whose worker parses the file, which creates only this task.
    :param again: whether to measure the second time that the process parses it.
    """
    for size, place in (((count, width), folder / "dag"), ((2, min(2, width)), folder / "warm-up")):
        place.mkdir(parents=True)
        for name, text in files(*size).items():
            (place / name).write_text(dedent(text))

    def run() -> float:
        dags = folder / "dag" / "dag.py", folder / ("dag" if again else "warm-up") / "dag.py"
        worker = {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "bench", "_AIRFLOW_PARSING_CONTEXT_TASK_ID": running}
        env = _quiet(folder) | (worker if running else {})
        found = run_side(python_of(environment), "parse", *dags, env=env, cwd=folder)
        wanted = 1 if running else count * width
        if found["tasks"] < wanted or (running and found["tasks"] > wanted):
            raise CannotRun(f"it made {found['tasks']:,} of {wanted:,} tasks")
        return float(found["seconds"])

    return run


def _sewer(folder: Path, flow: str, count: int, width: int = 1, running: str = "", *, again: bool = False) -> Side:
    return _side(
        folder,
        "airflow",
        lambda *size: {"dag.py": _SEWER, "flow.py": _counted(flow, *size)},
        count,
        width,
        running,
        again=again,
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
