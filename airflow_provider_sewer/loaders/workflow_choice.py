"""Selection of a workflow by name."""

from __future__ import annotations

from airflow_provider_sewer.core.errors import WorkflowFileError, unknown_name
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.workflow import DEFAULT_WORKFLOW


def select_workflow(name: str | None, known: list[str], file: str) -> str:
    """Return the name of the requested, the only or the default workflow.

    :param name: requested name, if given.
    :param known: names of the workflows in the file.
    :raises WorkflowFileError: when the name is unknown, or is required and not given.
    """
    if name is None and len(known) == 1:
        return known[0]
    selected = DEFAULT_WORKFLOW if name is None else name
    if selected in known:
        return selected
    if name is None:
        message = f"the file defines several workflows; choose one: {', '.join(map(repr, known))}"
    else:
        message = unknown_name("workflow", name, known)
    raise WorkflowFileError(message, SourceLine(file, 0))
