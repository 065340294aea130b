"""What a DAG gives a workflow that is known only when its tasks run: XComArgs, parameters, arguments of a mapped group.

The model knows nothing of Airflow's own things for that. So each gets a name, and a stand-in by that name takes its
place (see :mod:`airflow_provider_sewer.core.runtime_values`). In an operator, a stand-in that is a whole value becomes
Airflow's own thing again; in a text it is a template, and the operator is given the thing by its name in ``arguments``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions._internal.expandinput import DictOfListsExpandInput, MappedArgument
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.mappedoperator import ensure_xcomarg_return_value

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.graph import product_keys
from airflow_provider_sewer.core.runtime_values import RuntimeValue, as_text, named, names_in
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.core.templates import is_template
from airflow_provider_sewer.core.values import Ignored
from airflow_provider_sewer.operators.xcom_references import is_reference
from airflow_provider_sewer.task_group.group import MappedSewerTaskGroup, SewerTaskGroup
from airflow_provider_sewer.task_group.mapped_group import InstanceArgument

if TYPE_CHECKING:
    from airflow.sdk import TaskGroup

    from airflow_provider_sewer.core.workflow import Workflow

#: What is merged with what others say of it.
_MERGED = ("env", "slurm")


class DagValues:
    """The values that are known only when tasks run, by their names."""

    def __init__(self) -> None:
        self._references: dict[str, Any] = {}

    def arguments(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what a workflow is called with, stand-ins in place of what is known only at run time."""
        return {name: self._stand_in(name, value) for name, value in (given or {}).items()}

    def settings(self, **given: Any) -> dict[str, Any]:
        """Return what fields say, templates in place of what is known only at run time.

        :raises InvalidTask: when that is all of a field which is merged with others before anything runs.
        """
        for field in _MERGED:
            if is_reference(given.get(field)):
                raise InvalidTask(f"{field}: its names are known only when a task runs; give a value for each name")
        return {field: as_text(self._stand_in(field, value)) for field, value in given.items()}

    def including(self, name: str, reference: Any) -> tuple[DagValues, RuntimeValue]:
        """Return these values and one more, and the stand-in for that.

        :param name: its name, where no other value has that.
        :param reference: what Airflow resolves when the task runs.
        """
        others = DagValues()
        others._references = dict(self._references)
        return others, RuntimeValue(others._named(name, reference))

    def reference(self, value: RuntimeValue) -> Any:
        """Return what a stand-in stands for: what Airflow resolves when the task runs."""
        whole = self._references[value.stands_for]
        return _Part(whole, value) if value.key_path else whole

    def named_in(self, *fields: Any) -> dict[str, Any]:
        """Return by their names what the templates in fields of an operator name."""
        if not self._references:
            return {}
        several = {name: named(name) for name in sorted(_names_in(fields))}
        return {name: self.reference(one) for name, one in several.items() if one.stands_for in self._references}

    def new_group(self, **about: Any) -> SewerTaskGroup:
        """Make the task group, a mapped one if an argument has another value in each instance of it.

        :param about: arguments of the group.
        :raises InvalidWorkflow: when it is mapped inside of another mapped one.
        """
        each = {name: value for name, value in self._references.items() if isinstance(value, InstanceArgument)}
        if not each:
            return SewerTaskGroup(**about)
        values = DictOfListsExpandInput(dict(each.values()))
        ensure_xcomarg_return_value(values.value)
        group = MappedSewerTaskGroup(expand_input=values, **about)
        if group.parent_group is not None and is_mapped(group.parent_group):
            raise InvalidWorkflow(
                f"expand: group {group.parent_group.group_id!r} is mapped already, and Airflow mixes up the values of "
                "groups that are mapped inside of each other; give all of them to one expand",
                calling_line(),
            )
        self._references |= {name: MappedArgument(input=values, key=value.name) for name, value in each.items()}
        return group

    def _stand_in(self, name: str, value: Any) -> Any:
        if is_reference(value) or isinstance(value, InstanceArgument):
            return RuntimeValue(self._named(name, value))
        if isinstance(value, Mapping):
            return {key: self._stand_in(f"{name}.{key}", item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._stand_in(f"{name}.{at}", item) for at, item in enumerate(value))
        return value

    def _named(self, name: str, reference: Any) -> str:
        name = re.sub(r"[^\w.]", "_", name)
        while self._references.setdefault(name, reference) is not reference:
            name += "_"
        return name


class _Part(ResolveMixin):
    """A part of what is known only when a task runs."""

    def __init__(self, whole: Any, part: RuntimeValue) -> None:
        self._whole = whole
        self._part = part

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        yield from self._whole.iter_references()

    def resolve(self, context: Any) -> Any:
        return self._part.resolve(self._whole.resolve(context))

    def __repr__(self) -> str:
        return f"{self._whole!r} {self._part!r}"


def is_mapped(group: TaskGroup) -> bool:
    """Tell whether a group has several instances: it is mapped, or in one that is."""
    return next(group.iter_mapped_task_groups(), None) is not None


def refuse_one_path_for_all(workflow: Workflow, group: TaskGroup) -> None:
    """Refuse products of which all instances of a mapped group would make the same.

    :raises InvalidWorkflow: naming the task and the path.
    """
    for task in workflow.tasks.values():
        for key, product in zip(product_keys(task), task.products, strict=True):
            if not is_template(key):
                raise InvalidWorkflow(
                    f"task {task.name!r}: all instances of the mapped group {group.group_id!r} would make "
                    f"{product.path!r}; name what they differ by in the path, such as an argument of the workflow or "
                    "{{ ti.map_index }}",
                    task.source,
                )


def refuse_in_operator_kwargs(given: Mapping[str, Any]) -> None:
    """Refuse what is known only at run time where Airflow wants to know it before.

    :raises InvalidTask: naming the argument.
    """
    for name, value in given.items():
        if is_reference(value) or _names_in(as_text(value)):
            raise InvalidTask(
                f"operator_kwargs: {name!r} is known only when the task runs, and Airflow wants it before"
            )


def _names_in(value: Any) -> set[str]:
    """Return the names in the templates of a value, however deep; paths count as text.

    :raises InvalidTask: for a name in a key, which is the same in all runs.
    """
    if isinstance(value, Ignored):
        return _names_in(value.value)
    if isinstance(value, str):
        return set(names_in(value))
    if hasattr(value, "__fspath__"):
        return _names_in(value.__fspath__())
    if isinstance(value, Mapping):
        for key in value:
            if named := _names_in(key):
                raise InvalidTask(f"the key of a mapping must be known before the task runs, got {min(named)!r}")
        value = list(value.values())
    return set().union(*map(_names_in, value)) if isinstance(value, (list, tuple)) else set()
