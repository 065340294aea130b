"""Values of ``NAME=VALUE`` on the command line."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from airflow_provider_sewer.core.trusted_files import parse_json


def read_value(text: str) -> Any:
    """Parse a value as JSON; a value that is not JSON is a string."""
    with suppress(ValueError):
        return parse_json(text)
    return text
