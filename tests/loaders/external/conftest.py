"""Fixtures: interpreters that load workflow files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.process_fixtures import lifeline, no_test_hangs_or_leaves_processes_behind, script

from .external_env import Land

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["lifeline", "no_test_hangs_or_leaves_processes_behind", "script"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this test with the cached workflows that other interpreters have read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "airflow-provider-sewer" / "workflows"


@pytest.fixture
def land(tmp_path: Path, cache: Path) -> Land:
    """Return an environment made of the interpreter that runs the tests, with nothing in it."""
    return Land(tmp_path, sys.executable)


@pytest.fixture
def any_land(tmp_path: Path, cache: Path, any_python: Path) -> Land:
    """Return one of each version of Python."""
    return Land(tmp_path, any_python)
