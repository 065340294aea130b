"""Colours of ``sppe``: the choice of ``--color``, the variables of the shell, and the terminal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing import TextIO

COLOR_MODES = ("auto", "always", "never")
_NO_COLOUR_TERMINALS = ("", "dumb", "unknown")


def colored(text: str, color: str | None, stream: TextIO) -> str:
    """Return text in a colour, if the stream shows colours.

    :param color: a name that :func:`click.style` knows; ``None`` for none.
    """
    return click.style(text, fg=color) if color and text and _shows_colors(stream) else text


def set_color(context: click.Context, mode: str) -> None:
    """Set whether a command and the messages after its end have colours.

    :param mode: one of :data:`COLOR_MODES`. ``auto`` follows ``NO_COLOR``, ``FORCE_COLOR``, and then each stream.
    """
    has_color: bool | None = {"always": True, "never": False}.get(mode)
    if mode == "auto" and os.environ.get("NO_COLOR"):
        has_color = False
    elif mode == "auto" and (forced := os.environ.get("FORCE_COLOR")) is not None:
        has_color = bool(forced)
    context.color = context.find_root().color = has_color


def _shows_colors(stream: TextIO) -> bool:
    """Return whether a stream shows colours: as ``--color`` requests, else if it is a terminal with colours."""
    context = click.get_current_context(silent=True)
    if context is not None and context.color is not None:
        return context.color
    is_capable = os.environ.get("TERM", "") not in _NO_COLOUR_TERMINALS and os.environ.get("TTY_COMPATIBLE") != "0"
    return stream.isatty() and is_capable
