"""Workflow files, written for one test each."""

from __future__ import annotations

import sys
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


@pytest.fixture
def stages(write):
    """Return a function that writes stages beside a jobs module, and returns their path."""

    def stages(text: str, jobs: str = "def Lint(): ...\ndef Test(): ...\n", name: str = "stages.yaml"):
        write(jobs, "jobs.py", imports="")
        return write(text, name, imports="")

    return stages


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package of these files, for this test only."""
    modules = set(sys.modules)

    def install(name: str, files: dict[str, str]) -> None:
        folder = tmp_path / "site-packages" / name
        folder.mkdir(parents=True)
        for file, source in files.items():
            (folder / file).write_text(source)
        monkeypatch.syspath_prepend(str(folder.parent))

    yield install
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
