"""What there is little of, by name: GPUs, licences, seats at a database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow, Key, SewerError, unknown_name


def checked_resources(resources: Mapping[Any, Any]) -> dict[str, int]:
    """Return how much a task takes of each resource.

    :raises InvalidTask: when an amount is no whole number from 1 up, or a name is none.
    """
    for name, amount in resources.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InvalidTask(
                f"resources: a name is text, such as 'gpu', not {name!r:.200}", at=("resources", Key(name))
            )
        if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
            said = f"resources: {name!r}: a whole number from 1 up is needed, not {amount!r:.200}"
            raise InvalidTask(said, at=("resources", name))
    return dict(resources)


def check_limits(limits: Mapping[str, int], tasks: Mapping[str, Any]) -> None:
    """Make sure that each limit is of something, and that no task takes more than there is.

    :param limits: how much there is of each resource; without a limit, there is enough.
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
                    f"task {task.name!r} takes {amount} of {name!r}, and the limit is {limits[name]}", task.source
                )
