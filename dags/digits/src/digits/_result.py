"""Result of a step: JSON in the file given by the variable ``SEWER_RESULT_FILE``, if it is set."""

from __future__ import annotations

import os

from digits._files import write_json


def write_result(result: dict[str, object]) -> None:
    """Write a small result; in Airflow it becomes the task's XCom."""
    if path := os.environ.get("SEWER_RESULT_FILE"):
        write_json(path, result)
