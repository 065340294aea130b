"""Jinja templates in values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def is_template(value: object) -> bool:
    """Return whether a text contains a Jinja expression or statement; a comment alone does not count."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def find_template(value: Any) -> str | None:
    """Return the first template in a value, however deep, or ``None``; keys of mappings are not rendered."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return next((found for found in map(find_template, value) if found), None)
    return value if is_template(value) else None
