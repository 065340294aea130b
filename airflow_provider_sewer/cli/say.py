"""How ``sppe`` speaks to a person."""

from __future__ import annotations

import sys

from airflow_provider_sewer.execution.output import printable


def say(text: str) -> None:
    """Write to stderr what may hold output of a task, without letting it steer the terminal."""
    sys.stderr.write((printable(text) if sys.stderr.isatty() else text) + "\n")
