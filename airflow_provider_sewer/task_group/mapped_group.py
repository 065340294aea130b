"""Mapped task groups, as in Airflow: ``sewer_task_group.partial(…).expand(n=[1, 2])``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.graph import product_keys
from airflow_provider_sewer.core.secret_detection import exposed
from airflow_provider_sewer.core.size_limits import MAX_ITEMS
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.operators.secret_warnings import warn_of_secret
from airflow_provider_sewer.operators.xcom_references import is_reference
from airflow_provider_sewer.task_group.argument_checks import check_arguments

if TYPE_CHECKING:
    import os

    from airflow.sdk import TaskGroup

    from airflow_provider_sewer.core.workflow import Workflow

_Params = ParamSpec("_Params")
_Group = TypeVar("_Group")


class InstanceArgument(NamedTuple):
    """Argument that differs between the instances of a mapped group.

    :param name: the name of the argument.
    :param values: a list, or an XComArg that returns a list.
    """

    name: str
    values: Any


class MappableGroup(Generic[_Params, _Group]):
    """Function that creates a task group, with ``partial`` and ``expand`` as in Airflow.

    :param make: the function; it has the parameters ``workflow_file`` and ``arguments``.
    """

    def __init__(self, make: Callable[_Params, _Group]) -> None:
        self._make = make
        update_wrapper(self, make)

    def __call__(self, *args: _Params.args, **kwargs: _Params.kwargs) -> _Group:
        """Create the group.

        :raises InvalidTask: when an argument has the wrong type.
        """
        check_arguments({"workflow_file": args[0], **kwargs} if args else kwargs)
        return self._make(*args, **kwargs)

    def partial(self, workflow_file: str | os.PathLike[str], **given: Any) -> PartialGroup[_Group]:
        """Set the arguments common to all instances of a mapped group; see :meth:`PartialGroup.expand`.

        :param workflow_file: the workflow file.
        :param given: any other argument.
        :raises InvalidTask: when an argument has the wrong type.
        """
        check_arguments({"workflow_file": workflow_file, **given})
        return PartialGroup(self._make, workflow_file, given)


class PartialGroup(Generic[_Group]):
    """Mapped group before ``expand``.

    :param make: creates the group.
    :param workflow_file: the workflow file.
    :param given: the other arguments common to all instances.
    """

    def __init__(
        self, make: Callable[..., _Group], workflow_file: str | os.PathLike[str], given: Mapping[str, Any]
    ) -> None:
        self._make = make
        self._workflow_file = workflow_file
        self._given = given

    def expand(self, **arguments: Any) -> _Group:
        """Create a group with one instance per value, or per combination of values of several arguments.

        :param arguments: by parameter name of the workflow: a list of values, or an XComArg that returns a list.
        :raises InvalidWorkflow: when no argument is given, or ``partial`` sets it too.
        """
        same = self._given.get("arguments") or {}
        if not arguments:
            raise InvalidWorkflow(
                "expand() requires at least one keyword argument, e.g. expand(n=[10, 20])", calling_line()
            )
        for name, values in arguments.items():
            if name in same:
                raise InvalidWorkflow(
                    f"expand: {name!r} is already set in arguments of partial(); remove one of them", calling_line()
                )
            is_list = isinstance(values, (Sequence, Mapping)) and not isinstance(values, str)
            if not is_list and not is_reference(values):
                raise InvalidWorkflow(f"expand: {name} must be a list of values, got {values!r:.200}", calling_line())
            if is_list and len(values) > MAX_ITEMS:
                message = f"expand: {name} must have at most {MAX_ITEMS:,} values, got {len(values):,}"
                raise InvalidWorkflow(message, calling_line())
        literal = {name: values for name, values in arguments.items() if not is_reference(values)}
        for secret in exposed({}, (), literal, {}):
            warn_of_secret(f"{calling_line()}: expand: {secret}", calling_line().file)
        each = {name: InstanceArgument(name, values) for name, values in arguments.items()}
        return self._make(self._workflow_file, **{**self._given, "arguments": {**same, **each}})


def is_mapped(group: TaskGroup) -> bool:
    """Return whether a group, or a group around it, is mapped."""
    return next(group.iter_mapped_task_groups(), None) is not None


def reject_shared_product_paths(workflow: Workflow, group: TaskGroup) -> None:
    """Reject products whose path is the same in all instances of a mapped group.

    :raises InvalidWorkflow: naming the task and the path.
    """
    for task in workflow.tasks.values():
        for key, product in zip(product_keys(task), task.products, strict=True):
            if not is_template(key):
                raise InvalidWorkflow(
                    f"task {task.name!r}: all instances of the mapped group {group.group_id!r} would write to "
                    f"{product.path!r}; add a value that differs between them to the path, such as an argument of the "
                    "workflow or {{ ti.map_index }}",
                    task.source,
                )
