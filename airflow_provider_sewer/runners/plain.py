"""What a plain ``.run()`` in Python does: run what it is called on, here and now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import WorkflowFailed
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.runners.engine import Engine
from airflow_provider_sewer.runners.observers import PlainLines

if TYPE_CHECKING:
    from airflow_provider_sewer.core.recording import Run


def run_plainly(run: Run) -> None:
    """Run a task or a chain, its output going to stdout and stderr with the task's name before each line.

    :raises WorkflowFailed: when not all of it succeeded; it says what went wrong.
    """
    workflow = Workflow.of_runs("run", [run], source=run.source, is_part=True)
    engine = Engine(workflow, observers=[PlainLines()])
    engine.check()
    outcomes = engine.run()
    for warning in engine.warnings:
        sys.stderr.write(f"sewer: {warning}\n")
    failed = [f"{name}: {outcome.reason}" for name, outcome in outcomes.items() if not outcome.state.is_success]
    if failed:
        raise WorkflowFailed("\n".join(failed), run.source)
