"""Execution of mapped tasks, and the list of their results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.paths import Product
from airflow_provider_sewer.core.recording import recording
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = """
    from pathlib import Path

    def train(n: int, out: Path):
        out.write_text(str(n))
        return {"n": n, "loss": 1 / n}

    def best(models):
        return min(models, key=lambda model: model["loss"])
"""


@pytest.fixture(autouse=True)
def recorded() -> Iterator[None]:
    """Have each test count names by itself, as each file does."""
    with recording():
        yield


@pytest.fixture
def steps(modules) -> str:
    """Return the name of a module of functions."""
    return modules.write(STEPS)


def test_mapped_task_runs_each_value_and_passes_ordered_results(steps, modules, tmp_path) -> None:
    """Each makes a product of its own; the one after them is given a list."""
    train = Task("train", function=f"{steps}:train", kwargs={"out": Product("build/{n}/model")}).map(n=[1, 4, 2])
    best = Task("best", function=f"{steps}:best", kwargs={"models": train.result})
    runner = WorkflowRunner(Workflow("loop", [best, *train]), modules.settings(workdir=tmp_path))

    runner.check()
    outcomes = runner.run()

    assert {name: outcome.state for name, outcome in outcomes.items()} == dict.fromkeys(
        ["best", "train[n=1]", "train[n=4]", "train[n=2]"], TaskState.SUCCEEDED
    )
    assert outcomes["best"].result == {"n": 4, "loss": 0.25}
    assert {file.parent.name: file.read_text() for file in tmp_path.glob("build/*/model")} == {
        "1": "1",
        "2": "2",
        "4": "4",
    }


def test_check_rejects_task_mapped_over_result(steps, modules) -> None:
    """How many tasks that is, Airflow alone can wait for; the edge to the result is there all the same."""
    first = Task("first", function=f"{steps}:best", kwargs={"models": []})
    mapped = Task("train", function=f"{steps}:train", kwargs={"out": Product("{n}")}).map(n=first.result["sizes"])
    flow = Workflow("loop", [first, *mapped])

    assert flow.edges == [("first", "train")]
    assert flow.mapped == {"train": mapped}
    with pytest.raises(InvalidTask) as caught:
        WorkflowRunner(flow, modules.settings()).check()
    assert str(caught.value) == (
        f"{mapped.source}: task 'train' is mapped over first.result['sizes'], and only Airflow supports a "
        "number of tasks that is known at run time; map it over a list to run it here"
    )
