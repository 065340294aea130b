"""Run-time values that a DAG passes to a workflow: XComArgs, parameters and arguments of a mapped group.

The core does not depend on Airflow's references. A named placeholder replaces each of them
(see :mod:`airflow_provider_sewer.core.placeholders`). In an operator, a placeholder that is a whole value becomes
the Airflow reference again. In a string it is a template, and the operator gets the reference by name in ``arguments``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow.sdk.definitions._internal.expandinput import DictOfListsExpandInput, MappedArgument
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.mappedoperator import ensure_xcomarg_return_value

from airflow_provider_sewer.core.errors import InvalidTask, InvalidWorkflow
from airflow_provider_sewer.core.placeholders import Ignored, RuntimeValue, as_text, named, names_in
from airflow_provider_sewer.core.secret_detection import contains_text, secret_templates
from airflow_provider_sewer.core.source import calling_line
from airflow_provider_sewer.operators.xcom_references import is_reference
from airflow_provider_sewer.task_group.group import MappedSewerTaskGroup, SewerTaskGroup
from airflow_provider_sewer.task_group.mapped_group import InstanceArgument, is_mapped

#: Fields whose values are merged from several places.
_MERGED = ("env", "slurm", "retry_with")


class DagValues:
    """Run-time values of a DAG, by name."""

    def __init__(self) -> None:
        self._references: dict[str, Any] = {}
        #: The templates among the arguments of the workflow whose rendered values are secret.
        self.secret_templates: list[str] = []

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._references)

    def arguments(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return workflow arguments with placeholders for run-time values."""
        self.secret_templates = list(secret_templates(given))
        return {name: self._placeholder(name, value) for name, value in (given or {}).items()}

    def settings(self, **given: Any) -> dict[str, Any]:
        """Return fields with templates for run-time values.

        :raises InvalidTask: when a field that is merged at parse time is a run-time value as a whole.
        """
        for field in _MERGED:
            if is_reference(given.get(field)):
                raise InvalidTask(f"{field} must be a mapping with known names, got a run-time value; set each name")
        return {field: as_text(self._placeholder(field, value)) for field, value in given.items()}

    def including(self, name: str, reference: Any) -> tuple[DagValues, RuntimeValue]:
        """Return a copy with one more value, and its placeholder.

        :param name: its name, which is changed if it is taken.
        :param reference: the reference that Airflow resolves at run time.
        """
        others = DagValues()
        others._references = dict(self._references)
        others.secret_templates = self.secret_templates
        return others, RuntimeValue(others._register(name, reference))

    def reference(self, value: RuntimeValue) -> Any:
        """Return the Airflow reference of a placeholder."""
        whole = self._references[value.stands_for]
        return _PartReference(whole, value) if value.key_path else whole

    def named_in(self, *fields: Any) -> dict[str, Any]:
        """Return the references used by templates in operator fields, by name."""
        if not self:
            return {}
        found = {name: named(name) for name in sorted(_names_in(fields))}
        return {name: self.reference(value) for name, value in found.items() if value.stands_for in self._references}

    def secret_templates_in(self, *fields: Any) -> list[str]:
        """Return the templates of secret arguments that operator fields contain."""
        return [text for text in self.secret_templates if contains_text(fields, text)]

    def new_group(self, **group_kwargs: Any) -> SewerTaskGroup:
        """Create the task group; it is mapped if an argument differs between its instances.

        :param group_kwargs: arguments of the group.
        :raises InvalidWorkflow: when a mapped group contains another mapped group.
        """
        each = {name: value for name, value in self._references.items() if isinstance(value, InstanceArgument)}
        if not each:
            return SewerTaskGroup(**group_kwargs)
        values = DictOfListsExpandInput(dict(each.values()))
        ensure_xcomarg_return_value(values.value)
        group = MappedSewerTaskGroup(expand_input=values, **group_kwargs)
        if group.parent_group is not None and is_mapped(group.parent_group):
            raise InvalidWorkflow(
                f"expand: group {group.parent_group.group_id!r} is already mapped, and Airflow confuses the values of "
                "nested mapped groups; pass all values to one expand()",
                calling_line(),
            )
        self._references |= {name: MappedArgument(input=values, key=value.name) for name, value in each.items()}
        return group

    def _placeholder(self, name: str, value: Any) -> Any:
        if is_reference(value) or isinstance(value, InstanceArgument):
            return RuntimeValue(self._register(name, value))
        if isinstance(value, Mapping):
            return {key: self._placeholder(f"{name}.{key}", item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._placeholder(f"{name}.{at}", item) for at, item in enumerate(value))
        return value

    def _register(self, name: str, reference: Any) -> str:
        name = re.sub(r"[^\w.]", "_", name)
        while self._references.setdefault(name, reference) is not reference:
            name += "_"
        return name


class _PartReference(ResolveMixin):
    """Reference to a part of a run-time value."""

    def __init__(self, whole: Any, part: RuntimeValue) -> None:
        self._whole = whole
        self._part = part

    def iter_references(self) -> Iterator[tuple[Any, str]]:
        yield from self._whole.iter_references()

    def resolve(self, context: Any) -> Any:
        return self._part.resolve(self._whole.resolve(context))

    def __repr__(self) -> str:
        return f"{self._whole!r} {self._part!r}"


def reject_runtime_values(given: Mapping[str, Any]) -> None:
    """Reject run-time values in ``operator_kwargs``.

    :raises InvalidTask: naming the argument.
    """
    for name, value in given.items():
        if is_reference(value) or _names_in(as_text(value)):
            raise InvalidTask(f"operator_kwargs: {name!r} must be known at parse time, got a run-time value")


def _names_in(value: Any) -> set[str]:
    """Return the names in the templates of a value, including nested values and paths.

    :raises InvalidTask: when a mapping key contains a name, because keys are not rendered.
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
