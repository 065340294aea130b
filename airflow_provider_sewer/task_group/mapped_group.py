"""A task group of a workflow, mapped as Airflow's own groups are: ``sewer_task_group.partial(…).expand(n=[1, 2])``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar

from airflow_provider_sewer.core.errors import InvalidWorkflow
from airflow_provider_sewer.core.secret_detection import exposed
from airflow_provider_sewer.core.size_limits import MAX_ITEMS
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.operators.module import warn_of_secret
from airflow_provider_sewer.operators.xcom_references import is_reference
from airflow_provider_sewer.task_group.validation import check_arguments

if TYPE_CHECKING:
    import os

_Params = ParamSpec("_Params")
_Group = TypeVar("_Group")


class InstanceArgument(NamedTuple):
    """An argument that has another value in each instance of a mapped group.

    :param name: the name of the argument.
    :param values: the values: a list, or what gives one when the DAG runs.
    """

    name: str
    values: Any


class MappableGroup(Generic[_Params, _Group]):
    """A function that makes a task group, and that can be mapped as Airflow's own groups can.

    :param make: the function, which has the parameters ``workflow_file`` and ``arguments``.
    """

    def __init__(self, make: Callable[_Params, _Group]) -> None:
        self._make = make
        update_wrapper(self, make)

    def __call__(self, *args: _Params.args, **kwargs: _Params.kwargs) -> _Group:
        """Make the group.

        :raises InvalidTask: when an argument is not of the kind that it has to be.
        """
        check_arguments({"workflow_file": args[0], **kwargs} if args else kwargs)
        return self._make(*args, **kwargs)

    def partial(self, workflow_file: str | os.PathLike[str], **given: Any) -> PartialGroup[_Group]:
        """Say what is the same in all instances of a mapped group; see :meth:`Partial.expand`.

        :param workflow_file: the workflow file.
        :param given: any other argument.
        :raises InvalidTask: when one is not of the kind that it has to be.
        """
        check_arguments({"workflow_file": workflow_file, **given})
        return PartialGroup(self._make, workflow_file, given)


class PartialGroup(Generic[_Group]):
    """A mapped group to be, of which it is known what is the same in all instances.

    :param make: makes the group.
    :param workflow_file: the workflow file.
    :param given: what else is the same.
    """

    def __init__(
        self, make: Callable[..., _Group], workflow_file: str | os.PathLike[str], given: Mapping[str, Any]
    ) -> None:
        self._make = make
        self._workflow_file = workflow_file
        self._given = given

    def expand(self, **arguments: Any) -> _Group:
        """Make a group with an instance for each value; of several arguments, for each combination.

        :param arguments: by the names of the workflow's parameters a list of values, or an XComArg that gives one.
        :raises InvalidWorkflow: when there is none, or one that is the same in all instances as well.
        """
        same = self._given.get("arguments") or {}
        if not arguments:
            raise InvalidWorkflow("expand: say over what, such as expand(n=[10, 20])", calling_line())
        for name, values in arguments.items():
            if name in same:
                raise InvalidWorkflow(f"expand: {name!r} is the same in all instances already", calling_line())
            is_list = isinstance(values, (Sequence, Mapping)) and not isinstance(values, str)
            if not is_list and not is_reference(values):
                raise InvalidWorkflow(
                    f"expand: {name}: a list of values is needed, not {values!r:.200}", calling_line()
                )
            if is_list and len(values) > MAX_ITEMS:
                said = f"expand: {name} must have at most {MAX_ITEMS:,} values, got {len(values):,}"
                raise InvalidWorkflow(said, calling_line())
        literal = {name: values for name, values in arguments.items() if not is_reference(values)}
        for what in exposed({}, (), literal, {}):
            warn_of_secret(f"{calling_line()}: expand: {what}", calling_line().file)
        each = {name: InstanceArgument(name, values) for name, values in arguments.items()}
        return self._make(self._workflow_file, **{**self._given, "arguments": {**same, **each}})
