"""Values known only at run time: Jinja templates, which only Airflow fills in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def is_template(value: object) -> bool:
    """Tell whether a text holds a Jinja expression or statement."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def find_template(value: Any) -> str | None:
    """Return the first template inside a value, however deep, or ``None``."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return next((found for found in map(find_template, value) if found), None)
    return value if is_template(value) else None
