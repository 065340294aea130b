"""How a mistake in a workflow file is looked at."""

from __future__ import annotations

import pytest

from airflow_provider_sewer import SewerError, load_workflow
from airflow_provider_sewer.core.errors import WorkflowFileError


def fails(path, message: str, kind: type[SewerError] = WorkflowFileError, workflow: str | None = None) -> str:
    """Check that loading fails with this, and nothing but this, message (``{f}`` is the file)."""
    with pytest.raises(kind) as caught:
        load_workflow(path, workflow)
    assert str(caught.value) == message.replace("{f}", str(path))
    assert str(caught.value.where.file) == str(path)
    return str(caught.value)
