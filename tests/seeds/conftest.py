"""Fixtures that the tests of the earlier systems share with those of the command line."""

from __future__ import annotations

from tests.cli.conftest import sppe
from tests.process_fixtures import lifeline

__all__ = ["lifeline", "sppe"]
