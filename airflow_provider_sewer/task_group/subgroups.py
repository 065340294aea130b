"""Subgroups of a workflow's group, and the ids of their tasks."""

from __future__ import annotations

import re
from collections import Counter

from airflow.sdk import TaskGroup

from airflow_provider_sewer.core.groups import IN_GROUP


class Subgroups:
    """Groups of a workflow, created on lookup.

    Ids are unique within a group; without group prefixes, they are unique in the whole workflow.

    :param root: the workflow's group.
    """

    def __init__(self, root: TaskGroup) -> None:
        self.root = root
        self._groups = {"": root}
        self._ids: dict[str, TaskIds] = {}
        self._shared = None if root.prefix_group_id else TaskIds()
        if self._shared:
            self._shared.unique_id(str(root.group_id))

    def all(self) -> list[TaskGroup]:
        """Return all groups created so far, the workflow's group first."""
        return list(self._groups.values())

    def new_id(self, name: str, group: str = "") -> str:
        """Return a unique id in a group, without the group's prefix.

        :param name: the base of the id.
        :param group: the name of the group.
        """
        return (self._shared or self._ids.setdefault(group, TaskIds())).unique_id(name)

    def full_id(self, own_id: str, group: str = "") -> str:
        """Return the id of a task in the DAG, including the group's prefix."""
        return str(self.get_or_create(group).child_id(own_id))  # type: ignore[no-untyped-call]

    def get_or_create(self, group: str) -> TaskGroup:
        """Return the group of a name; create it if needed.

        :param group: its name; ``"a.b"`` is the group b in the group a.
        """
        if group not in self._groups:
            outer, _, inner = group.rpartition(IN_GROUP)
            parent = self.get_or_create(outer)
            self._groups[group] = TaskGroup(
                group_id=self.new_id(inner, outer),
                group_display_name=inner,
                prefix_group_id=parent.prefix_group_id,
                parent_group=parent,
            )
        return self._groups[group]


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
