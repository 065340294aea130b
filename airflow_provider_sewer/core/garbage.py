"""Control of Python's garbage collection."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable garbage collection while many long-lived objects are created.

    For each few hundred objects, Python would search the youngest ones, and sometimes all objects, including those of
    Airflow. That takes longer than the creation of a thousand tasks.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
