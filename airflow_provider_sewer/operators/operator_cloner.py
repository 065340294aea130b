"""Cloning of operators that differ only in the module or function they run, for faster DAG parsing.

Airflow's operator constructor dominates the parse time of a large workflow. Most operators of a workflow share its
results. They are therefore copied, as Airflow itself copies an operator before running it, and only the fields of the
task are replaced.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.definitions._internal.contextmanager import DagContext, TaskGroupContext
from airflow.sdk.definitions._internal.setup_teardown import SetupTeardownContext
from airflow.sdk.definitions.param import ParamsDict

from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.placeholders import PLAIN, Ignored
from airflow_provider_sewer.operators.secret_warnings import warn_of_secrets
from airflow_provider_sewer.operators.template_markers import TemplateMarkers
from airflow_provider_sewer.operators.xcom_references import FromXCom

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.operators.module import PythonModuleOperator

#: Fields that differ between the operators of tasks: the code to run and its display.
PER_TASK_FIELDS = (
    "task_id", "task_display_name", "doc_md", "module", "parameters_and_flags", "args", "use_underscores", "function",
    "op_kwargs", "products", "dependencies", "stale_after",
)  # fmt: skip

#: Fields that can contain markers.
_MARKED = ("parameters_and_flags", "args", "op_kwargs", "products", "dependencies")

_CHANGEABLE = frozenset({list, dict, set, ParamsDict})


class OperatorCloner:
    """Creates operators in the current DAG and task group, cloning where possible."""

    def __init__(self) -> None:
        self._prototypes: dict[Any, _Prototype] = {}

    def clone(
        self, kind: type[PythonModuleOperator], own: Mapping[str, Any], shared: Mapping[str, Any]
    ) -> PythonModuleOperator:
        """Create an operator.

        :param kind: its class.
        :param own: :data:`PER_TASK_FIELDS` of a checked task.
        :param shared: its other arguments.
        """
        if SetupTeardownContext.active or not all(_is_data(own[name]) for name in _MARKED):
            return kind(**own, **shared)
        key = (kind, id(DagContext.get_current()), id(TaskGroupContext.get_current()), _key(shared))
        if key in self._prototypes:
            return self._prototypes[key].clone(own)
        first = kind(**own, **shared)
        if not first.upstream_task_ids:  # otherwise Airflow has to resolve a reference in `shared`
            self._prototypes[key] = _Prototype(first, shared)
        return first


class _Prototype:
    """Operator from which others are cloned.

    :param shared: the arguments shared by the clones; kept alive, as some are identified by their object id.
    """

    def __init__(self, operator: PythonModuleOperator, shared: Mapping[str, Any]) -> None:
        self._operator = operator
        self._shared = shared
        self._state = dict(vars(operator))
        self._changeable = [name for name, value in self._state.items() if type(value) in _CHANGEABLE]
        self._outlets = operator.outlets[: len(operator.outlets) - len(operator._asset_names())]

    def clone(self, own: Mapping[str, Any]) -> PythonModuleOperator:
        """Return another operator in the same DAG and group, with its own per-task fields."""
        kind, dag, group = type(self._operator), self._operator.dag, self._operator.task_group
        clone = kind.__new__(kind)
        state = vars(clone)
        state.update(self._state)
        for name in self._changeable:
            state[name] = copy.copy(state[name]) if state[name] else type(state[name])()
        state["_BaseOperator__init_kwargs"].update(own)
        markers = TemplateMarkers()
        state.update(
            task_id=group.child_id(own["task_id"]) if group else own["task_id"],  # type: ignore[no-untyped-call]
            _task_display_name=own["task_display_name"],
            upstream_task_ids=set(),
            downstream_task_ids=set(),
            task_group=None,
            stale_after=list(own["stale_after"]),
            _markers=markers,
            **{name: own[name] for name in ("doc_md", "module", "function", "use_underscores")},
            **{name: markers.extract(own[name], name) for name in _MARKED},
        )
        warn_of_secrets(clone.task_id, clone._dag, vars(clone))
        state["outlets"] = [*self._outlets, *map(Asset, clone._asset_names())]
        if group:
            group.add(clone)
            state["task_group"] = group
        dag.add_task(clone)
        return clone


def _is_data(value: Any) -> bool:
    """Return whether a value contains no reference that Airflow would resolve later."""
    if type(value) in PLAIN or isinstance(value, (PathMarker, FromXCom)):
        return True
    if isinstance(value, Ignored):
        return _is_data(value.value)
    if type(value) is dict:
        return all(map(_is_data, value.values()))
    return type(value) in (list, tuple) and all(map(_is_data, value))


def _key(value: Any) -> Any:
    """Return a key that is equal for equal data; for other values, for the same object."""
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if kind is dict:
        return kind, tuple((name, _key(item)) for name, item in value.items())
    if kind in (list, tuple):
        return kind, tuple(map(_key, value))
    return kind, id(value)
