"""Workflow functions with parameters."""

from __future__ import annotations

import pytest

from airflow_provider_sewer import SewerError, load_workflow

FLOW = """
from airflow_provider_sewer import Task, workflow

@workflow
def train(models, n=10, *, seed=None):
    for model in models:
        Task(model, "train", {"n": n, "seed": seed}).run()
"""


@pytest.fixture
def flow(tmp_path):
    """Return the path of a workflow file with parameters."""
    path = tmp_path / "flow.py"
    path.write_text(FLOW)
    return path


def test_load_workflow_passes_arguments(flow) -> None:
    """They are plain values, by which it can be made of other tasks."""
    loaded = load_workflow(flow, arguments={"models": ["svc", "forest"], "seed": 7})
    assert loaded.order == ("svc", "forest")
    assert loaded.tasks["forest"].arguments() == ["--n", "10", "--seed", "7"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "train() missing 1 required positional argument: 'models'. Signature: (models, n=10, *, seed=None); pass"),
        (
            {"models": [], "m": 1},
            "train() got an unexpected keyword argument 'm'. Signature: (models, n=10, *, seed=None)",
        ),
    ],
)
def test_load_workflow_rejects_missing_or_unknown_argument(flow, arguments, message) -> None:
    """With the workflow's line and its parameters."""
    with pytest.raises(SewerError) as raised:
        load_workflow(flow, arguments=arguments)
    assert f"{flow}:4: TypeError: {message}" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "flow.py",
            "from airflow_provider_sewer import Task\nTask('t', 'm')",
            "has no @workflow that takes 'n'",
        ),
        ("stages.yaml", "Lint: {module: lint}", "stages take no arguments, got 'n'"),
    ],
)
def test_load_workflow_without_workflow_function_rejects_arguments(tmp_path, name, text, message) -> None:
    """There is nothing that could be called with them."""
    (tmp_path / name).write_text(text)
    with pytest.raises(SewerError, match=message):
        load_workflow(tmp_path / name, arguments={"n": 1})
