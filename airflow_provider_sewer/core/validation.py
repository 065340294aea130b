"""Limits of text for processes, common to arguments, variables and paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, Key, SewerError, unknown_name
from airflow_provider_sewer.core.size_limits import bounded_list

#: Maximum bytes of one argument, or of one ``NAME=value``, in Linux: 128 KiB, less the final NUL.
MAX_BYTES = 131_071


def invalid_reason(text: str, *, longest: int | None = MAX_BYTES) -> str | None:
    """Return why a text cannot be passed to a process, or ``None`` if it can.

    :param longest: maximum size in bytes; ``None`` for any size.
    """
    if "\0" in text:
        return "contains a NUL byte; remove it"
    if text.isascii() and len(text) <= MAX_BYTES:
        return None
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError as error:
        return f"contains {text[error.start]!r}, which cannot be passed to a process ({error.reason})"
    if longest is not None and size > longest:
        return f"must have at most {longest:,} bytes, got {size:,}; write it to a file and give its path"
    return None


def is_template(value: object) -> bool:
    """Return whether a text contains a Jinja expression or statement; a comment alone does not count."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def find_template(value: Any) -> str | None:
    """Return the first template in a value, however deep, or ``None``; keys of mappings are not rendered."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return next((found for found in map(find_template, value) if found), None)
    return value if is_template(value) else None


#: Separates the name of a group from that of a group in it.
IN_GROUP = "."

#: A tag contains no operators of selectors.
_TAG = re.compile(r"[^\s,+@*?\[\]]+")


def checked_tags(tags: Any) -> tuple[str, ...]:
    """Return tags without duplicates.

    :raises InvalidTask: for anything but words.
    """
    several = [tags] if isinstance(tags, str) else tags
    if not isinstance(several, Iterable) or isinstance(several, (bytes, Mapping, AbstractSet)):
        raise InvalidTask(f"tags must be a list of tags, got {tags!r:.200}", at=("tags",))
    given = bounded_list("tags", several)
    for index, tag in enumerate(given):
        if not isinstance(tag, str) or not tag.isprintable() or not _TAG.fullmatch(tag):
            message = f"tags must be words without spaces and , + @ * ? [ ], got {tag!r}"
            raise InvalidTask(message, at=("tags", index))
    return tuple(dict.fromkeys(given))


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


def checked_resources(resources: Mapping[Any, Any]) -> dict[str, int]:
    """Return the amounts of limited resources that a task needs.

    :raises InvalidTask: when an amount is not a whole number of at least 1, or a name is not valid.
    """
    for name, amount in resources.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InvalidTask(
                f"resources: a name must be text, such as 'gpu', got {name!r:.200}", at=("resources", Key(name))
            )
        if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
            message = f"resources: {name!r} must be a whole number of at least 1, got {amount!r:.200}"
            raise InvalidTask(message, at=("resources", name))
    return dict(resources)


def check_limits(limits: Mapping[str, int], tasks: Mapping[str, Any]) -> None:
    """Check that each limit names a resource of a task, and that no task needs more than its limit.

    :param limits: limits of resources; others are unlimited.
    :param tasks: tasks by name.
    :raises SewerError: naming the limit or the task.
    """
    known = dict.fromkeys(name for task in tasks.values() for name in task.resources)
    for limit in limits:
        if limit not in known:
            raise SewerError(unknown_name("resource", limit, known))
    for task in tasks.values():
        for name, amount in task.resources.items():
            if amount > limits.get(name, amount):
                raise InvalidWorkflow(
                    f"task {task.name!r} needs {amount} of {name!r}, but the limit is {limits[name]}", task.source
                )
