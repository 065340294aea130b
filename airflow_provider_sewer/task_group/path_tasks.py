"""The Airflow tasks that a workflow's paths need besides its own tasks.

An external input is waited for by a sensor; temporary products are removed by a task that runs once all their users
have succeeded. Both work where the users of the path do.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.paths import External, path_key
from airflow_provider_sewer.core.runtime_values import readable
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

#: What is said of a task that holds for what waits and removes for it as well: the workers that see its paths, what
#: helps against their failures, and what templates in its paths name. A pool does not: it is for what a task takes of
#: something scarce. An execution_timeout is that of the module: a wait has a timeout of its own.
_AS_ITS_USER = (
    "queue", "executor", "executor_config", "run_as_user", "owner", "params", "retries", "retry_delay",
    "retry_exponential_backoff", "retry_policy", "max_retry_delay", "priority_weight", "weight_rule",
)  # fmt: skip
#: Who is told of what becomes of an Airflow task; this holds of all tasks that use a path.
_CALLBACKS = (
    "on_execute_callback", "on_failure_callback", "on_retry_callback", "on_skipped_callback", "on_success_callback",
)  # fmt: skip
_EMAIL_ON = ("email_on_failure", "email_on_retry")


class PathTask(NamedTuple):
    """An Airflow task that is to wait for a path, or to remove some.

    :param task_id: its id in the group.
    :param place: the task where whose Airflow task runs it runs as well.
    :param users: the tasks that use the path.
    :param is_before: whether it runs before these, or after them.
    :param make: makes it, once there are the Airflow tasks of ``place`` and of these, which it is given in this order.
    """

    task_id: str
    position: str
    consumers: list[str]
    is_before: bool
    make: Callable[[Sequence[Operator]], Operator]


def path_tasks(
    wiring: UpstreamRefs, new_id: Callable[[str], str], *, deferrable: bool | None, values: DagValues
) -> Iterator[PathTask]:
    """Return the tasks that wait for paths, and those that remove them.

    :param wiring: knows the workflow.
    :param new_id: returns an id that no other task of the group has.
    :param deferrable: whether to wait in the triggerer.
    :param values: what is known only when the tasks run.
    """
    for external, users in _externals(wiring.workflow):
        task_id = new_id(f"wait for {_last(external.path)}")
        rows = _rows(users[0], external, wiring, values)
        make = partial(_sensor, task_id, external, rows, values, deferrable)
        yield PathTask(task_id, users[0], users, is_before=True, make=make)
    for products, (maker, *users) in _temporary_products(wiring):
        task_id = new_id(f"remove {_last(products[0].path)}")
        rows = _rows(maker, products[0], wiring, values)
        yield PathTask(task_id, maker, users, is_before=False, make=partial(_remover, task_id, products, rows, values))


def _rows(name: str, marker: PathMarker, wiring: UpstreamRefs, values: DagValues) -> ResultExpansion | None:
    """Return what a task is mapped over, if only a run brings that to light, and a path of it has it in its name."""
    mapped = wiring.workflow.mapped.get(name)
    is_named = mapped is not None and not mapped.is_known_beforehand and mapped.names_value(marker.path)
    return ResultExpansion(mapped, wiring, values) if mapped is not None and is_named else None


def _externals(workflow: Workflow) -> Iterator[tuple[External, list[str]]]:
    users: dict[tuple[Any, ...], tuple[External, list[str]]] = {}
    for task, dependency in workflow.edge_reasons.external_inputs:
        if isinstance(dependency, External):
            mapped = workflow.mapped.get(task.name)
            own = mapped.name if mapped is not None and mapped.names_value(dependency.path) else None
            key = path_key(dependency.path, task.settings.workdir), dependency.timeout, own
            users.setdefault(key, (dependency, []))[1].append(task.name)
    yield from users.values()


def _temporary_products(wiring: UpstreamRefs) -> Iterator[tuple[list[Product], list[str]]]:
    """Return products that are removed together: those that the same Airflow tasks make and use.

    What a task needs that is left out of the group is kept for it.

    :returns: for each, the products, and the names of the task that makes the first one and of those that use it.
    """
    workflow = wiring.workflow
    together: dict[tuple[str, ...], tuple[list[Product], list[str]]] = {}
    for name, task in workflow.tasks.items():
        for product in task.products:
            users = workflow.edge_reasons.consumers.get((name, product.path))
            is_wanted_elsewhere = bool(workflow.excluded.consumers.get((name, product.path)))
            if product.temporary and users and not is_wanted_elsewhere:
                key = tuple(dict.fromkeys(wiring.parts[each] for each in (name, *users)))
                together.setdefault(key, ([], [name, *users]))[0].append(product)
    yield from together.values()


def _sensor(
    task_id: str,
    external: External,
    rows: ResultExpansion | None,
    values: DagValues,
    deferrable: bool | None,
    users: Sequence[Operator],
) -> Operator:
    from airflow_provider_sewer.operators.paths import ExternalPathSensor

    # What is not said here is left out, so that a default argument of the DAG or of the group can say it.
    known = {"timeout": external.timeout, "deferrable": deferrable}
    said: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    said |= {"doc_md": f"Waits for `{readable(external.path)}`, which comes from outside of the workflow.\n"}
    if rows is None:
        return ExternalPathSensor(task_id=task_id, path=external.path, **_place(users, values, external.path), **said)
    path = rows.path(external)
    partial = ExternalPathSensor.partial(task_id=task_id, path=path, **_place(users, rows.values, path), **said)
    return partial.expand_kwargs(rows.instances())


def _remover(
    task_id: str,
    products: list[Product],
    rows: ResultExpansion | None,
    values: DagValues,
    operators: Sequence[Operator],
) -> BaseOperator:
    from airflow_provider_sewer.operators.paths import RemoveProductsOperator

    listed = "".join(f"- `{readable(product.path)}`\n" for product in products)
    return RemoveProductsOperator(
        task_id=task_id,
        products=rows.paths(products) if rows else products,
        made_by=operators[0].task_id,
        trigger_rule="all_success",  # whatever default arguments say
        doc_md=f"Removes these products once all tasks that use them have succeeded:\n\n{listed}",
        **_place(operators, values, *(product.path for product in products)),
    )


def _place(operators: Sequence[Operator], values: DagValues, *paths: str) -> dict[str, Any]:
    """Return where and how an Airflow task is run, who is told of it, and what is known later of that and of paths.

    :param operators: those that make or use the paths; it runs where and how the first one does.
    """
    first = operators[0]
    said = getattr(first, "partial_kwargs", None) or vars(first)
    where = {field: said.get(field) for field in ("workdir", "sewer_conn_id")}
    how = {field: getattr(first, field) for field in _AS_ITS_USER}
    return {**where, **how, **_notified(operators), "arguments": values.named_in(*where.values(), *paths)}


def _notified(operators: Sequence[Operator]) -> dict[str, Any]:
    """Return the callbacks and email addresses of all these operators, each once."""
    told: dict[str, Any] = {field: _each_once(getattr(each, field) for each in operators) for field in _CALLBACKS}
    asking = [each for each in operators if each.email]
    if not asking:
        return told
    emails = [each.email for each in asking]
    listed = [re.split(r"\s*[,;]\s*", email) if isinstance(email, str) else email for email in emails]
    is_one = all(email == emails[0] for email in emails)
    told["email"] = emails[0] if is_one else _each_once(listed)
    return told | {field: any(getattr(each, field) for each in asking) for field in _EMAIL_ON}


def _each_once(lists: Iterable[Iterable[Any] | None]) -> list[Any]:
    found: list[Any] = []
    for each in chain.from_iterable(several or () for several in lists):
        if each not in found:
            found.append(each)
    return found


def _last(path: str) -> str:
    return readable(path).rstrip("/").rpartition("/")[2]
