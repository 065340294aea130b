"""Inline execution of a task or a chain with ``.run()`` in Python."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import WorkflowFailed
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.import_guard import refuse_during_import
from airflow_provider_sewer.execution.prefixed_lines import PrefixedLines
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner

if TYPE_CHECKING:
    from airflow_provider_sewer.core.recording import Run


def run_inline(run: Run) -> None:
    """Run a task or a chain; its output goes to stdout and stderr, each line with the task's name as prefix.

    :raises InvalidWorkflow: while Airflow imports DAG files; no task starts.
    :raises WorkflowFailed: when a task did not succeed, with the reasons.
    """
    refuse_during_import(".run()", run.source)
    workflow = Workflow.of_runs("run", [run], source=run.source, is_part=True)
    engine = WorkflowRunner(workflow, observers=[PrefixedLines()])
    engine.check()
    outcomes = engine.run()
    for warning in engine.warnings:
        sys.stderr.write(f"sewer: {warning}\n")
    failed = [f"{name}: {outcome.reason}" for name, outcome in outcomes.items() if not outcome.state.is_success]
    if failed:
        raise WorkflowFailed("\n".join(failed), run.source)
