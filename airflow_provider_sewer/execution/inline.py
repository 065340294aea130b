"""Inline execution of a task or a chain with ``.run()`` in Python."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow_provider_sewer.core.errors import InvalidWorkflow, WorkflowFailed
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.log_observers import PrefixedLines
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from airflow_provider_sewer.core.recording import Run

#: The package in which Airflow imports DAG files, in the DAG processor, on workers and in its commands.
_IMPORTS_DAG_FILES = "airflow.dag_processing"


def run_inline(run: Run) -> None:
    """Run a task or a chain; its output goes to stdout and stderr, each line with the task's name as prefix.

    :raises InvalidWorkflow: while Airflow imports DAG files; no task starts.
    :raises WorkflowFailed: when a task did not succeed, with the reasons.
    """
    _refuse_in_dag_files(run)
    workflow = Workflow.of_runs("run", [run], source=run.source, is_part=True)
    engine = WorkflowRunner(workflow, observers=[PrefixedLines()])
    engine.check()
    outcomes = engine.run()
    for warning in engine.warnings:
        sys.stderr.write(f"sewer: {warning}\n")
    failed = [f"{name}: {outcome.reason}" for name, outcome in outcomes.items() if not outcome.state.is_success]
    if failed:
        raise WorkflowFailed("\n".join(failed), run.source)


def _refuse_in_dag_files(run: Run) -> None:
    """Raise an error while Airflow imports a DAG file, which happens repeatedly and outside of DAG runs.

    The stack is inspected, because Airflow sets no variable at every such import. All threads are inspected, as a file
    may start one.
    """
    if any(str(frame.f_globals.get("__name__")).startswith(_IMPORTS_DAG_FILES) for frame in _frames()):
        raise InvalidWorkflow(
            ".run() cannot start tasks while Airflow imports DAG files; name this workflow file in .airflowignore, or "
            'put .run() under if __name__ == "__main__":',
            run.source,
        )


def _frames() -> Iterator[FrameType]:
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        while frame:
            yield frame
            frame = frame.f_back
