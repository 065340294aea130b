"""The Airflow tasks that a workflow's paths need besides its own tasks.

An external input is waited for by a sensor; temporary products are removed by a task that runs once all their users
have succeeded. Both work where the users of the path do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.paths import External, path_key
from airflow_provider_sewer.core.run_time import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.task_group.run_time import RunTimeValues

    Operator = BaseOperator | MappedOperator

#: What is said of a task that holds for what waits and removes for it as well: the workers that see its paths, and what
#: helps against their failures. A pool does not: it is for what a task takes of something scarce.
_AS_ITS_USER = (
    "queue", "executor", "executor_config", "run_as_user", "owner", "retries", "retry_delay",
    "retry_exponential_backoff", "max_retry_delay", "priority_weight", "weight_rule",
)  # fmt: skip


def add_path_tasks(
    workflow: Workflow,
    operators: Mapping[str, Operator],
    new_id: Callable[[str], str],
    *,
    deferrable: bool | None,
    values: RunTimeValues,
) -> None:
    """Make the tasks that wait for paths, and those that remove them.

    :param workflow: the workflow.
    :param operators: its Airflow tasks, by the names of the tasks; several tasks can be one mapped one.
    :param new_id: returns an id that no other task of the group has.
    :param deferrable: whether to wait in the triggerer.
    :param values: what is known only when the tasks run.
    """

    def those(names: Iterable[str]) -> list[Operator]:
        return list({operators[name].task_id: operators[name] for name in names}.values())

    for external, users in _externals(workflow):
        task_id = new_id(f"wait for {_last(external.path)}")
        place = _place(operators[users[0]], values, external.path)
        _sensor(task_id, external, place, deferrable).set_downstream(those(users))
    for paths, (maker, *users) in _temporary_products(workflow, operators):
        place = _place(operators[maker], values, *paths)
        _remover(new_id(f"remove {_last(paths[0])}"), paths, place).set_upstream(those(users))


def _externals(workflow: Workflow) -> Iterator[tuple[External, list[str]]]:
    users: dict[tuple[str, float | None], tuple[External, list[str]]] = {}
    for task, dependency in workflow.why.unmade:
        if isinstance(dependency, External):
            key = path_key(dependency.path, task.settings.workdir), dependency.timeout
            users.setdefault(key, (dependency, []))[1].append(task.name)
    yield from users.values()


def _temporary_products(workflow: Workflow, operators: Mapping[str, Operator]) -> Iterator[tuple[list[str], list[str]]]:
    """Return paths that are removed together: those that the same Airflow tasks make and use.

    What a task needs that is left out of the group is kept for it.

    :returns: for each, the paths, and the names of the task that makes the first one and of those that use it.
    """
    together: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for name, task in workflow.tasks.items():
        for product in task.products:
            users = workflow.why.users.get((name, product.path))
            is_wanted_elsewhere = bool(workflow.elsewhere.users.get((name, product.path)))
            if product.temporary and users and not is_wanted_elsewhere:
                key = tuple(dict.fromkeys(operators[each].task_id for each in (name, *users)))
                together.setdefault(key, ([], [name, *users]))[0].append(product.path)
    yield from together.values()


def _sensor(task_id: str, external: External, place: Mapping[str, Any], deferrable: bool | None) -> BaseOperator:
    from airflow_provider_sewer.operators.paths import ExternalPathSensor

    # What is not said here is left out, so that a default argument of the DAG or of the group can say it.
    known = {"timeout": external.timeout, "deferrable": deferrable}
    said: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
    return ExternalPathSensor(
        task_id=task_id,
        path=external.path,
        doc_md=f"Waits for `{readable(external.path)}`, which comes from outside of the workflow.\n",
        **place,
        **said,
    )


def _remover(task_id: str, paths: list[str], place: Mapping[str, Any]) -> BaseOperator:
    from airflow_provider_sewer.operators.paths import RemoveProductsOperator

    listed = "".join(f"- `{readable(path)}`\n" for path in paths)
    return RemoveProductsOperator(
        task_id=task_id,
        products=paths,
        trigger_rule="all_success",  # whatever default arguments say
        doc_md=f"Removes these products once all tasks that use them have succeeded:\n\n{listed}",
        **place,
    )


def _place(operator: Operator, values: RunTimeValues, *paths: str) -> dict[str, Any]:
    """Return where and how an Airflow task is run, and what is known later of that and of paths."""
    said = getattr(operator, "partial_kwargs", None) or vars(operator)
    where = {field: said.get(field) for field in ("workdir", "sewer_conn_id")}
    how = {field: getattr(operator, field) for field in _AS_ITS_USER}
    return {**where, **how, "arguments": values.named_in(*where.values(), *paths)}


def _last(path: str) -> str:
    return readable(path).rstrip("/").rpartition("/")[2]
