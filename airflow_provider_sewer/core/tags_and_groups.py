"""What tasks of a workflow are sorted by: tags, by which they are selected, and groups, in which they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask
from airflow_provider_sewer.core.size_limits import bounded_list

#: Parts the name of a group from that of a group in it.
IN_GROUP = "."

#: A tag has nothing in it that means something else where tasks are selected by it.
_TAG = re.compile(r"[^\s,+@*?\[\]]+")


def checked_tags(tags: Any) -> tuple[str, ...]:
    """Return tags, each once, or say why they are none.

    :raises InvalidTask: for anything but words.
    """
    several = [tags] if isinstance(tags, str) else tags
    if not isinstance(several, Iterable) or isinstance(several, (bytes, Mapping, AbstractSet)):
        raise InvalidTask(f"tags: a list of tags is needed, not {tags!r:.200}", at=("tags",))
    given = bounded_list("tags", several)
    for place, tag in enumerate(given):
        if not isinstance(tag, str) or not tag.isprintable() or not _TAG.fullmatch(tag):
            said = f"tags: {tag!r} is none; a tag is a word without spaces and , + @ * ? [ ]"
            raise InvalidTask(said, at=("tags", place))
    return tuple(dict.fromkeys(given))


def checked_group(group: Any) -> str:
    """Return the name of a group, ``""`` for none, or say why it is no name.

    :raises InvalidTask: for anything but text without gaps between its dots.
    """
    if group is None:
        return ""
    if not isinstance(group, str) or not group.isprintable() or not all(map(str.strip, group.split(IN_GROUP))):
        said = f"group: a name such as 'training', or 'training.svm' for a group in it, not {group!r:.200}"
        raise InvalidTask(said, at=("group",))
    return group


def inner_group(outer: str, inner: str) -> str:
    """Return the name of a group in another one; either may be none."""
    return IN_GROUP.join(filter(None, (outer, inner)))


def group_in(outer: str, group: str) -> str:
    """Return the name of the group right in ``outer`` that a group in it is, or lies in.

    :param outer: the name of a group, ``""`` for none.
    :param group: the name of the same one, or of one that lies in it.
    :returns: ``""`` for the same one.
    """
    if group == outer:
        return ""
    way = group[len(outer) + len(IN_GROUP) :] if outer else group
    return inner_group(outer, way.partition(IN_GROUP)[0])
