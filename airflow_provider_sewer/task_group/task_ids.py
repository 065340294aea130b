"""Names → ids that Airflow takes."""

from __future__ import annotations

import re
from collections import Counter


class TaskIds:
    """Gives each name an id of its own that Airflow takes."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: Counter[str] = Counter()

    def unique_id(self, name: str) -> str:
        """Return an id that no other name has."""
        base = candidate = identifier(name)
        while candidate in self._taken:
            self._counts[base] += 1
            candidate = f"{base}_{self._counts[base] + 1}"
        self._taken.add(candidate)
        return candidate


def identifier(name: str) -> str:
    """Write a name with the characters that Airflow allows in an id: letters, digits, dash, underscore."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:200] or "task"
