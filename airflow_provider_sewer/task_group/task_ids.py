"""Airflow ids from task names."""

from __future__ import annotations

import re
from collections import Counter


class TaskIds:
    """Generates unique Airflow ids."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: Counter[str] = Counter()

    def unique_id(self, name: str) -> str:
        """Return a unique id for a name."""
        base = candidate = identifier(name)
        while candidate in self._taken:
            self._counts[base] += 1
            candidate = f"{base}_{self._counts[base] + 1}"
        self._taken.add(candidate)
        return candidate


def identifier(name: str) -> str:
    """Replace characters that Airflow does not allow in an id; it allows letters, digits, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:200] or "task"
