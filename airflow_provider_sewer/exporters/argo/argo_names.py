"""Names of Argo and Kubernetes for the names of workflows, tasks and tags."""

from __future__ import annotations

import re

#: Kubernetes' limit for names and the values of labels.
_LONGEST_NAME = 63
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9]+")


class Names:
    """Names of Argo for names of tasks, each unique: letters, digits and dashes, at most 63."""

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}
        self._of: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Return the name of Argo for a name of this package."""
        if name not in self._of:
            self._of[name] = self._unique(valid_name(name), name)
        return self._of[name]

    def _unique(self, wanted: str, name: str) -> str:
        number, found = 1, wanted
        while self._taken.setdefault(found, name) != name:
            number += 1
            suffix = f"-{number}"
            found = wanted[: _LONGEST_NAME - len(suffix)] + suffix
        return found


def valid_name(name: str) -> str:
    """Return the letters and digits of a name, with a dash for each gap."""
    return _NOT_IN_NAME.sub("-", name).strip("-")[:_LONGEST_NAME].rstrip("-") or "task"
