"""Python's search for garbage, left out where there is none."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def gc_paused() -> Iterator[None]:
    """Have Python not search for garbage in the block, in which many objects are made that all stay.

    For each few hundred of these it would look through the youngest objects, and now and then through all there are,
    those of Airflow included, which takes longer than to make a thousand tasks.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
