"""Workflow files, written for one test each."""

from __future__ import annotations

from textwrap import dedent

import pytest

IMPORTS = "from airflow_provider_sewer import Task, workflow\n"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file below a folder of this test and returns its path."""

    def write(source: str | bytes, name: str = "flow.py", *, imports: str = IMPORTS):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = source if isinstance(source, bytes) else (imports + dedent(source).lstrip("\n")).encode()
        path.write_bytes(content)
        return path

    return write
