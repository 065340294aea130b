"""Where in the group of a workflow its tasks are: in which group of it, and by which id."""

from __future__ import annotations

from airflow.sdk import TaskGroup

from airflow_provider_sewer.core.labels import IN_GROUP
from airflow_provider_sewer.task_group.identifiers import Identifiers


class Subgroups:
    """The groups in the group of a workflow, made as they are asked for.

    Ids of tasks and groups that lie in one group differ; without the prefixes of groups, all ids do.

    :param root: the group of the workflow.
    """

    def __init__(self, root: TaskGroup) -> None:
        self.root = root
        self._groups = {"": root}
        self._ids: dict[str, Identifiers] = {}
        self._shared = None if root.prefix_group_id else Identifiers()
        if self._shared:
            self._shared.new(str(root.group_id))

    def all(self) -> list[TaskGroup]:
        """Return all groups that there are so far, that of the workflow first."""
        return list(self._groups.values())

    def new_id(self, name: str, group: str = "") -> str:
        """Return an id that nothing else in a group has, without the prefix of the group.

        :param name: what it is made of.
        :param group: the name of the group.
        """
        return (self._shared or self._ids.setdefault(group, Identifiers())).new(name)

    def full_id(self, own_id: str, group: str = "") -> str:
        """Return the id that a task of a group has in the DAG."""
        return str(self.at(group).child_id(own_id))  # type: ignore[no-untyped-call]

    def at(self, group: str) -> TaskGroup:
        """Return the group of a name.

        :param group: its name; ``"a.b"`` is the group b in the group a.
        """
        if group not in self._groups:
            outer, _, inner = group.rpartition(IN_GROUP)
            parent = self.at(outer)
            self._groups[group] = TaskGroup(
                group_id=self.new_id(inner, outer),
                group_display_name=inner,
                prefix_group_id=parent.prefix_group_id,
                parent_group=parent,
            )
        return self._groups[group]
