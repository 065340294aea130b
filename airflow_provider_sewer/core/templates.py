"""Values known only at run time: Jinja templates, which only Airflow fills in.

What counts as a template is decided here, for ``sppe`` and for Airflow. Jinja itself also takes ``{#`` for the begin of
a comment, and changes line ends of any text; text without a template never gets there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def is_template(value: object) -> bool:
    """Tell whether a text holds a Jinja expression or statement; a comment alone makes no template."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def find_template(value: Any) -> str | None:
    """Return the first template inside a value, however deep, or ``None``; keys of mappings are never filled in."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return next((found for found in map(find_template, value) if found), None)
    return value if is_template(value) else None
