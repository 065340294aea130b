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

from airflow_provider_sewer.core.placeholders import deep_copy_plain
from airflow_provider_sewer.operators.assets import asset_names
from airflow_provider_sewer.operators.secret_fields import hide_arguments
from airflow_provider_sewer.operators.secret_warnings import stored_secrets, warn_of_secrets
from airflow_provider_sewer.operators.template_markers import MARKED, TemplateMarkers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_sewer.operators.module import PythonModuleOperator

#: Further fields that each operator sets itself, and so are not copied.
_OWN = (*MARKED, "upstream_task_ids", "downstream_task_ids", "stale_after", "outlets")

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
        :param own: fields of a checked task: the code to run and its display. Its secrets have been reported.
        :param shared: its other arguments. Operators with the same object are clones of the first one.
        """
        markers = TemplateMarkers()
        fields = {name: markers.extract(own[name], name) for name in MARKED}
        key = (id(shared), id(DagContext.get_current()), id(TaskGroupContext.get_current()))
        if SetupTeardownContext.active or markers.has_objects:
            return kind(**own, **deep_copy_plain(shared))
        if key in self._prototypes:
            return self._prototypes[key].clone(own, fields, markers)
        first = kind(**own, **deep_copy_plain(shared))
        if not first.upstream_task_ids:  # otherwise Airflow has to resolve a reference in `shared`
            self._prototypes[key] = _Prototype(first, shared)
        return first


class _Prototype:
    """Operator from which others are cloned.

    :param shared: the arguments shared by the clones; kept alive, as its object id identifies the prototype.
    """

    def __init__(self, operator: PythonModuleOperator, shared: Mapping[str, Any]) -> None:
        self._operator = operator
        self._shared = shared
        self._state = dict(vars(operator))
        self._changeable = [
            name for name, value in self._state.items() if type(value) in _CHANGEABLE and name not in _OWN
        ]
        self._outlets = operator.outlets[: len(operator.outlets) - len(asset_names(operator))]
        self._is_warned_of = bool(list(stored_secrets(operator.env)))

    def clone(
        self, own: Mapping[str, Any], fields: Mapping[str, Any], markers: TemplateMarkers
    ) -> PythonModuleOperator:
        """Return another operator in the same DAG and group, with its own per-task fields.

        :param fields: those of its fields that can contain markers, without them.
        :param markers: these markers.
        """
        kind, dag, group = type(self._operator), self._operator.dag, self._operator.task_group
        clone = kind.__new__(kind)
        state = vars(clone)
        state.update(self._state)
        for name in self._changeable:
            state[name] = copy.copy(state[name]) if state[name] else type(state[name])()
        state["_BaseOperator__init_kwargs"].update(own)
        state.update(
            hide_arguments(fields, self._operator.arguments),
            task_id=group.child_id(own["task_id"]) if group else own["task_id"],  # type: ignore[no-untyped-call]
            _task_display_name=own["task_display_name"],
            doc_md=own.get("doc_md", state["doc_md"]),
            module=own["module"],
            function=own["function"],
            use_underscores=own["use_underscores"],
            upstream_task_ids=set(),
            downstream_task_ids=set(),
            task_group=None,
            stale_after=list(own["stale_after"]),
            _markers=markers,
        )
        if self._is_warned_of:
            warn_of_secrets(clone.task_id, clone._dag, vars(clone))
        state["outlets"] = [*self._outlets, *map(Asset, asset_names(clone))]
        if group:
            group.add(clone)
            state["task_group"] = group
        dag.add_task(clone)
        return clone
