"""Messages of ``sppe`` on stderr."""

from __future__ import annotations

import sys

from airflow_provider_sewer.execution.output import printable


def write_message(text: str) -> None:
    """Write to stderr; control characters in task output do not reach a terminal."""
    sys.stderr.write((printable(text) if sys.stderr.isatty() else text) + "\n")
