"""Resources that tasks need, and the limits of a run on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, Key, SewerError, unknown_name


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
