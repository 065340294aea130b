"""Airflow tasks for paths: sensors for external inputs, and tasks that remove temporary products.

A task removes temporary products once all their consumers have succeeded. Both kinds run where the consumers run.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.paths import External, path_key
from airflow_provider_sewer.core.placeholders import readable
from airflow_provider_sewer.task_group.expand_over_result import ResultExpansion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_sewer.core.paths import PathMarker, Product
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.task_group.dag_values import DagValues
    from airflow_provider_sewer.task_group.wiring import UpstreamRefs

    Operator = BaseOperator | MappedOperator

#: Arguments that a path task takes over from its consumer: the workers that see its paths, retries, and the parameters
#: in path templates. It takes no pool, because a pool limits the resources of the module. It takes no
#: execution_timeout, because that limits the module; a sensor has its own timeout.
_INHERITED_FIELDS = (
    "queue", "executor", "executor_config", "run_as_user", "owner", "params", "retries", "retry_delay",
    "retry_exponential_backoff", "retry_policy", "max_retry_delay", "priority_weight", "weight_rule",
)  # fmt: skip
#: Callbacks, merged from all tasks that use a path.
_CALLBACKS = (
    "on_execute_callback", "on_failure_callback", "on_retry_callback", "on_skipped_callback", "on_success_callback",
)  # fmt: skip
_EMAIL_ON = ("email_on_failure", "email_on_retry")


class PathTask(NamedTuple):
    """Specification of a sensor for a path, or of a task that removes products.

    :param task_id: its id in the group.
    :param position: the task that determines where it runs.
    :param consumers: the tasks that use the path.
    :param is_before: whether it runs before or after the consumers.
    :param make: creates it from the Airflow tasks of ``position`` and ``consumers``, in this order.
    """

    task_id: str
    position: str
    consumers: list[str]
    is_before: bool
    make: Callable[[Sequence[Operator]], Operator]


def path_tasks(
    refs: UpstreamRefs, new_id: Callable[[str], str], *, deferrable: bool | None, values: DagValues
) -> Iterator[PathTask]:
    """Yield the sensors of external inputs and the tasks that remove temporary products.

    :param refs: upstream references of the workflow.
    :param new_id: returns a unique task id of the group.
    :param deferrable: whether sensors wait in the triggerer.
    :param values: run-time values of the DAG.
    """
    for external, consumers in _externals(refs.workflow):
        task_id = new_id(f"wait for {_file_name(external.path)}")
        expansion = _result_expansion(consumers[0], external, refs, values)
        make = partial(_sensor, task_id, external, expansion, values, deferrable)
        yield PathTask(task_id, consumers[0], consumers, is_before=True, make=make)
    for products, (producer, *consumers) in _temporary_products(refs):
        task_id = new_id(f"remove {_file_name(products[0].path)}")
        expansion = _result_expansion(producer, products[0], refs, values)
        remove = partial(_remover, task_id, products, expansion, values)
        yield PathTask(task_id, producer, consumers, is_before=False, make=remove)


def _result_expansion(name: str, marker: PathMarker, refs: UpstreamRefs, values: DagValues) -> ResultExpansion | None:
    """Return the expansion of a task mapped over a result, if the path contains the mapped value."""
    mapped = refs.workflow.mapped.get(name)
    is_named = mapped is not None and not mapped.is_known_beforehand and mapped.names_value(marker.path)
    return ResultExpansion(mapped, refs, values) if mapped is not None and is_named else None


def _externals(workflow: Workflow) -> Iterator[tuple[External, list[str]]]:
    found: dict[tuple[Any, ...], tuple[External, list[str]]] = {}
    for task, dependency in workflow.edge_reasons.external_inputs:
        if isinstance(dependency, External):
            mapped = workflow.mapped.get(task.name)
            own = mapped.name if mapped is not None and mapped.names_value(dependency.path) else None
            key = path_key(dependency.path, task.settings.workdir), dependency.timeout, own
            found.setdefault(key, (dependency, []))[1].append(task.name)
    yield from found.values()


def _temporary_products(refs: UpstreamRefs) -> Iterator[tuple[list[Product], list[str]]]:
    """Yield temporary products grouped by the Airflow tasks that produce and consume them.

    Products that a task outside the group consumes are not removed.

    :returns: the products of each group, and the names of the producer of the first one and of its consumers.
    """
    workflow = refs.workflow
    together: dict[tuple[str, ...], tuple[list[Product], list[str]]] = {}
    for name, task in workflow.tasks.items():
        for product in task.products:
            consumers = workflow.edge_reasons.consumers.get((name, product.path))
            is_used_elsewhere = bool(workflow.excluded.consumers.get((name, product.path)))
            if product.temporary and consumers and not is_used_elsewhere:
                key = tuple(dict.fromkeys(refs.node_of[each] for each in (name, *consumers)))
                together.setdefault(key, ([], [name, *consumers]))[0].append(product)
    yield from together.values()


def _sensor(
    task_id: str,
    external: External,
    expansion: ResultExpansion | None,
    values: DagValues,
    deferrable: bool | None,
    operators: Sequence[Operator],
) -> Operator:
    from airflow_provider_sewer.operators.paths import ExternalPathSensor

    # Unset fields are omitted, so that default arguments of the DAG or group apply.
    known = {"timeout": external.timeout, "deferrable": deferrable}
    fields: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    fields |= {"doc_md": f"Waits for `{readable(external.path)}`, an external input of the workflow.\n"}
    if expansion is None:
        inherited = _inherited_fields(operators, values, external.path)
        return ExternalPathSensor(task_id=task_id, path=external.path, **inherited, **fields)
    path = expansion.path(external)
    inherited = _inherited_fields(operators, expansion.values, path)
    sensor = ExternalPathSensor.partial(task_id=task_id, path=path, **inherited, **fields)
    return sensor.expand_kwargs(expansion.instances())


def _remover(
    task_id: str,
    products: list[Product],
    expansion: ResultExpansion | None,
    values: DagValues,
    operators: Sequence[Operator],
) -> BaseOperator:
    from airflow_provider_sewer.operators.paths import RemoveProductsOperator

    listed = "".join(f"- `{readable(product.path)}`\n" for product in products)
    return RemoveProductsOperator(
        task_id=task_id,
        products=expansion.paths(products) if expansion else products,
        made_by=operators[0].task_id,
        trigger_rule="all_success",  # overrides default arguments
        doc_md=f"Removes these products once all tasks that use them have succeeded:\n\n{listed}",
        **_inherited_fields(operators, values, *(product.path for product in products)),
    )


def _inherited_fields(operators: Sequence[Operator], values: DagValues, *paths: str) -> dict[str, Any]:
    """Return the arguments that a path task takes over from the producers and consumers of its paths.

    :param operators: these; the first one determines where and how the path task runs.
    """
    first = operators[0]
    given = getattr(first, "partial_kwargs", None) or vars(first)
    location = {field: given.get(field) for field in ("workdir", "sewer_conn_id")}
    inherited = {field: getattr(first, field) for field in _INHERITED_FIELDS}
    arguments = values.named_in(*location.values(), *paths)
    return {**location, **inherited, **_notifications(operators), "arguments": arguments}


def _notifications(operators: Sequence[Operator]) -> dict[str, Any]:
    """Return the callbacks and email addresses of all operators, without duplicates."""
    fields: dict[str, Any] = {field: _unique(getattr(each, field) for each in operators) for field in _CALLBACKS}
    with_email = [each for each in operators if each.email]
    if not with_email:
        return fields
    emails = [each.email for each in with_email]
    listed = [re.split(r"\s*[,;]\s*", email) if isinstance(email, str) else email for email in emails]
    is_one = all(email == emails[0] for email in emails)
    fields["email"] = emails[0] if is_one else _unique(listed)
    return fields | {field: any(getattr(each, field) for each in with_email) for field in _EMAIL_ON}


def _unique(lists: Iterable[Iterable[Any] | None]) -> list[Any]:
    found: list[Any] = []
    for each in chain.from_iterable(items or () for items in lists):
        if each not in found:
            found.append(each)
    return found


def _file_name(path: str) -> str:
    return readable(path).rstrip("/").rpartition("/")[2]
