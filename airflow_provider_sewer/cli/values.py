"""What a person gives on the command line as ``NAME=VALUE``."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any


def read_value(text: str) -> Any:
    """Return what JSON makes of a value; one that is no JSON is text."""
    with suppress(ValueError):
        return json.loads(text)
    return text
