"""The Airflow tasks that a workflow's paths need besides its own tasks.

An external input is waited for by a sensor; temporary products are removed by a task that runs once all their users
have succeeded. Both work where the users of the path do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.paths import External, path_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow.sdk import BaseOperator

    from airflow_provider_sewer.core.workflow import Workflow


def add_path_tasks(
    workflow: Workflow,
    operators: Mapping[str, BaseOperator],
    new_id: Callable[[str], str],
    *,
    deferrable: bool | None,
) -> None:
    """Make the tasks that wait for paths, and those that remove them.

    :param workflow: the workflow.
    :param operators: its Airflow tasks, by the names of the tasks.
    :param new_id: returns an id that no other task of the group has.
    :param deferrable: whether to wait in the triggerer.
    """
    for external, users in _externals(workflow):
        task_id = new_id(f"wait for {_last(external.path)}")
        _sensor(task_id, external, operators[users[0]], deferrable).set_downstream([operators[name] for name in users])
    for path, maker, users in _temporary_products(workflow):
        remover = _remover(new_id(f"remove {_last(path)}"), path, operators[maker])
        remover.set_upstream([operators[name] for name in users])


def _externals(workflow: Workflow) -> Iterator[tuple[External, list[str]]]:
    users: dict[tuple[str, float | None], tuple[External, list[str]]] = {}
    for task, dependency in workflow.why.unmade:
        if isinstance(dependency, External):
            key = path_key(dependency.path, task.settings.workdir), dependency.timeout
            users.setdefault(key, (dependency, []))[1].append(task.name)
    yield from users.values()


def _temporary_products(workflow: Workflow) -> Iterator[tuple[str, str, list[str]]]:
    for name, task in workflow.tasks.items():
        for product in task.products:
            users = workflow.why.users.get((name, product.path))
            if product.temporary and users:
                yield product.path, name, list(dict.fromkeys(users))


def _sensor(task_id: str, external: External, user: Any, deferrable: bool | None) -> BaseOperator:
    from airflow_provider_sewer.operators.paths import ExternalPathSensor

    said = {} if external.timeout is None else {"timeout": external.timeout}
    return ExternalPathSensor(
        task_id=task_id,
        path=external.path,
        workdir=user.workdir,
        sewer_conn_id=user.sewer_conn_id,
        deferrable=deferrable,
        doc_md=f"Waits for `{external.path}`, which comes from outside of the workflow.\n",
        **said,
    )


def _remover(task_id: str, path: str, maker: Any) -> BaseOperator:
    from airflow_provider_sewer.operators.paths import RemoveProductsOperator

    return RemoveProductsOperator(
        task_id=task_id,
        products=[path],
        workdir=maker.workdir,
        sewer_conn_id=maker.sewer_conn_id,
        doc_md=f"Removes `{path}` once all tasks that use it have succeeded.\n",
    )


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
