"""Names of groups of tasks, of which one can be in another."""

from __future__ import annotations

from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask

#: Separates the name of a group from that of a group in it.
IN_GROUP = "."


def checked_group(group: Any) -> str:
    """Return the name of a group; ``""`` for no group.

    :raises InvalidTask: for anything but text without gaps between its dots.
    """
    if group is None:
        return ""
    if not isinstance(group, str) or not group.isprintable() or not all(map(str.strip, group.split(IN_GROUP))):
        message = f"group must be a name such as 'training', or 'training.svm' for a group in it, got {group!r:.200}"
        raise InvalidTask(message, at=("group",))
    return group


def inner_group(outer: str, inner: str) -> str:
    """Return the name of a group in another one; either may be empty."""
    return IN_GROUP.join(filter(None, (outer, inner)))


def group_in(outer: str, group: str) -> str:
    """Return the name of the group directly in ``outer`` that is, or contains, another group.

    :param outer: the name of a group, or ``""``.
    :param group: the name of the same group, or of one inside it.
    :returns: ``""`` for the same group.
    """
    if group == outer:
        return ""
    inner = group[len(outer) + len(IN_GROUP) :] if outer else group
    return inner_group(outer, inner.partition(IN_GROUP)[0])
