"""What a person gives on the command line as ``NAME=VALUE``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from airflow_provider_sewer.core.trusted_files import parse_json


def read_value(text: str) -> Any:
    """Return what JSON makes of a value; one that is no JSON is text."""
    with suppress(ValueError):
        return parse_json(text)
    return text
