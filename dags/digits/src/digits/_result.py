"""The result of a step, for whoever runs it: JSON in the file that ``SEWER_RESULT_FILE`` names, if it names one."""

from __future__ import annotations

import os

from digits._files import write_json


def leave_result(result: dict[str, object]) -> None:
    """Leave a small result; under Airflow it becomes the XCom of the task."""
    if path := os.environ.get("SEWER_RESULT_FILE"):
        write_json(path, result)
