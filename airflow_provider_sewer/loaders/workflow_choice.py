"""Which of the workflows of a file is meant."""

from __future__ import annotations

from airflow_provider_sewer.core.errors import WorkflowFileError, unknown_name
from airflow_provider_sewer.core.source import SourceLine
from airflow_provider_sewer.core.workflow import DEFAULT_WORKFLOW


def select_workflow(wanted: str | None, known: list[str], file: str) -> str:
    """Return the name of the workflow that is meant: the one that is named, the only one, or the default one.

    :param wanted: its name, if one was given.
    :param known: the names that there are.
    :raises WorkflowFileError: when there is none of that name, or several and none is named.
    """
    if wanted is None and len(known) == 1:
        return known[0]
    name = DEFAULT_WORKFLOW if wanted is None else wanted
    if name in known:
        return name
    if wanted is None:
        said = f"the file holds several workflows; name one: {', '.join(map(repr, known))}"
    else:
        said = unknown_name("workflow", wanted, known)
    raise WorkflowFileError(said, SourceLine(file, 0))
