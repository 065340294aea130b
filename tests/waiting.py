"""Waiting for a condition that another process or thread makes true."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = float(os.environ.get("SEWER_TEST_PATIENCE", "60"))


def wait_until(
    condition: Callable[[], Any], goal: str | Callable[[], str] = "the condition", timeout: float = PATIENCE
) -> Any:
    """Wait until a condition gives something true, and return that; fail after so many seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timed out waiting for {goal if isinstance(goal, str) else goal()}"
        time.sleep(0.02)
    return value
