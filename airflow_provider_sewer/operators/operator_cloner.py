"""Many operators that differ only in what they run, made from the first of them.

Airflow's constructor asks each operator of a DAG the same hundred questions, which takes longer than all the rest. Most
tasks of a workflow give the same answers: so these are copied, as Airflow itself copies an operator before it runs it,
and only what is the task's own is put in their place.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.definitions._internal.contextmanager import DagContext, TaskGroupContext
from airflow.sdk.definitions._internal.setup_teardown import SetupTeardownContext
from airflow.sdk.definitions.param import ParamsDict

from airflow_provider_sewer.core.paths import PathMarker
from airflow_provider_sewer.core.values import PLAIN, Ignored
from airflow_provider_sewer.operators.template_markers import TemplateMarkers
from airflow_provider_sewer.operators.xcom_references import FromXCom

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.operators.module import PythonModuleOperator
#: What tells a task's operator from those of others: what is run, and how it is shown.
PER_TASK_FIELDS = (
    "task_id", "task_display_name", "doc_md", "module", "parameters_and_flags", "args", "use_underscores", "function",
    "op_kwargs", "products", "dependencies", "stale_after",
)  # fmt: skip

#: Those that can hold paths and the like.
_MARKED = ("parameters_and_flags", "args", "op_kwargs", "products", "dependencies")

_CHANGEABLE = frozenset({list, dict, set, ParamsDict})


class OperatorCloner:
    """Makes operators, each in the DAG and in the group that are current."""

    def __init__(self) -> None:
        self._firsts: dict[Any, _Prototype] = {}

    def clone(
        self, kind: type[PythonModuleOperator], own: Mapping[str, Any], shared: Mapping[str, Any]
    ) -> PythonModuleOperator:
        """Make an operator.

        :param kind: its class.
        :param own: :data:`OWN`, of a task that has been checked.
        :param shared: its other arguments.
        """
        if SetupTeardownContext.active or not all(_is_data(own[name]) for name in _MARKED):
            return kind(**own, **shared)
        key = (kind, id(DagContext.get_current()), id(TaskGroupContext.get_current()), _key(shared))
        if key in self._firsts:
            return self._firsts[key].clone(own)
        first = kind(**own, **shared)
        if not first.upstream_task_ids:  # else there is a reference in what is shared, which Airflow has to see
            self._firsts[key] = _Prototype(first, shared)
        return first


class _Prototype:
    """An operator that others are made from.

    :param shared: the arguments that it shares with them; these stay, for some are known by what object they are.
    """

    def __init__(self, operator: PythonModuleOperator, shared: Mapping[str, Any]) -> None:
        self._operator = operator
        self._shared = shared
        self._state = dict(vars(operator))
        self._changeable = [name for name, value in self._state.items() if type(value) in _CHANGEABLE]
        self._outlets = operator.outlets[: len(operator.outlets) - len(operator._asset_names())]

    def clone(self, own: Mapping[str, Any]) -> PythonModuleOperator:
        """Return another operator in the same DAG and group, which differs in what is its own."""
        kind, dag, group = type(self._operator), self._operator.dag, self._operator.task_group
        twin = kind.__new__(kind)
        state = vars(twin)
        state.update(self._state)
        for name in self._changeable:
            state[name] = copy.copy(state[name]) if state[name] else type(state[name])()
        state["_BaseOperator__init_kwargs"].update(own)
        marks = TemplateMarkers()
        state.update(
            task_id=group.child_id(own["task_id"]) if group else own["task_id"],  # type: ignore[no-untyped-call]
            _task_display_name=own["task_display_name"],
            upstream_task_ids=set(),
            downstream_task_ids=set(),
            task_group=None,
            stale_after=list(own["stale_after"]),
            _marks=marks,
            **{name: own[name] for name in ("doc_md", "module", "function", "use_underscores")},
            **{name: marks.extract(own[name], name) for name in _MARKED},
        )
        twin._warn_of_secrets()
        state["outlets"] = [*self._outlets, *map(Asset, twin._asset_names())]
        if group:
            group.add(twin)
            state["task_group"] = group
        dag.add_task(twin)
        return twin


def _is_data(value: Any) -> bool:
    """Tell whether there is no reference in a value that Airflow would resolve later."""
    if type(value) in PLAIN or isinstance(value, (PathMarker, FromXCom)):
        return True
    if isinstance(value, Ignored):
        return _is_data(value.value)
    if type(value) is dict:
        return all(map(_is_data, value.values()))
    return type(value) in (list, tuple) and all(map(_is_data, value))


def _key(value: Any) -> Any:
    """Return what is equal for values that are the same to an operator: equal data, else the same object."""
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if kind is dict:
        return kind, tuple((name, _key(item)) for name, item in value.items())
    if kind in (list, tuple):
        return kind, tuple(map(_key, value))
    return kind, id(value)
