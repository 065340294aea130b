"""Messages of ``sppe`` on stderr, and colours."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from airflow_provider_sewer.execution.output import printable

if TYPE_CHECKING:
    from typing import TextIO

_NO_COLOUR_TERMINALS = ("", "dumb", "unknown")


def write_message(text: str, color: str | None = None) -> None:
    """Write to stderr; control characters in task output do not reach a terminal.

    :param color: colour on a terminal.
    """
    shown = printable(text) if sys.stderr.isatty() else text
    sys.stderr.write(colored(shown, color, sys.stderr) + "\n")


def colored(text: str, color: str | None, stream: TextIO) -> str:
    """Return text in a colour, if the stream shows colours.

    :param color: a name that :func:`click.style` knows; ``None`` for none.
    """
    return click.style(text, fg=color) if color and text and _shows_colors(stream) else text


def _shows_colors(stream: TextIO) -> bool:
    """Return whether a stream shows colours: as ``--color`` requests, else as the environment and the stream allow."""
    context = click.get_current_context(silent=True)
    if context is not None and context.color is not None:
        return context.color
    if os.environ.get("NO_COLOR"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    if forced is not None:
        return bool(forced)
    is_capable = os.environ.get("TERM", "") not in _NO_COLOUR_TERMINALS and os.environ.get("TTY_COMPATIBLE") != "0"
    return stream.isatty() and is_capable
