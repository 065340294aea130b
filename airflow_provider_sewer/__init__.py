"""Workflows of Python modules: written once, and run from the shell, in the debugger and in Airflow.

This package exports the names for workflow files. They are quick to import and need only the standard library; the
integration into Airflow is in :mod:`airflow_provider_sewer.task_group` and the packages beside it.
"""

from __future__ import annotations

from airflow_provider_sewer.core.chain import run
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.core.paths import Dependency, External, Product
from airflow_provider_sewer.core.placeholders import Ignored
from airflow_provider_sewer.core.recording import Run, set_inline_runner
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.task_decorator import task
from airflow_provider_sewer.core.workflow import Workflow, workflow
from airflow_provider_sewer.loaders.python_file import get_task_from_module, get_tasks_from_module, load_module
from airflow_provider_sewer.loaders.workflow_files import load_workflow

__version__ = "0.1.0"

__all__ = [
    "Dependency",
    "External",
    "Ignored",
    "Product",
    "SewerError",
    "Task",
    "Workflow",
    "get_task_from_module",
    "get_tasks_from_module",
    "load_module",
    "load_workflow",
    "run",
    "task",
    "workflow",
]


def _run_plainly(run: Run) -> None:
    from airflow_provider_sewer.execution.inline import run_inline

    run_inline(run)


set_inline_runner(_run_plainly)
