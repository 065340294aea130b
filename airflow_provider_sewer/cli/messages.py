"""Messages of ``sppe`` on stderr."""

from __future__ import annotations

import sys

from airflow_provider_sewer.cli.colors import colored
from airflow_provider_sewer.execution.output import printable


def write_message(text: str, color: str | None = None) -> None:
    """Write to stderr; control characters in task output do not reach a terminal.

    :param color: colour on a terminal.
    """
    shown = printable(text) if sys.stderr.isatty() else text
    sys.stderr.write(colored(shown, color, sys.stderr) + "\n")
