"""Fixtures that the tests of the earlier systems share with those of the command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("shared", Path(__file__).parents[1] / "cli" / "conftest.py")
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)
sppe, lifeline = _shared.sppe, _shared.lifeline
