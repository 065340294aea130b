"""XCom by which an Airflow task reports the run that produced its products to downstream tasks.

The bare fact that a task ran is not enough: a downstream task may have failed then, and finds the task skipped in the
next DAG run. The XCom therefore also identifies the run that left the products; downstream tasks store it in their
product records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.formats import RUN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk.types import RuntimeTaskInstanceProtocol

#: XCom key of tasks that do not always run.
_KEY = "sewer_run"


class UpstreamRuns(NamedTuple):
    """Run information of the upstream tasks.

    :param reran: names of the tasks that ran in this DAG run.
    :param runs: run that left the products of each task, where known.
    """

    reran: list[str]
    runs: dict[str, str]


def push_run_info(ti: RuntimeTaskInstanceProtocol, run: str | None, *, reran: bool) -> None:
    """Push to XCom whether this task ran.

    :param run: run that left the products of this task.
    """
    ti.xcom_push(key=_KEY, value=RUN.written({"reran": reran, "run": run}))


def pull_upstream_runs(names: Iterable[str], ti: RuntimeTaskInstanceProtocol, *, is_in_instances: bool) -> UpstreamRuns:
    """Pull run information from the upstream XComs. Tasks without it are assumed to have run.

    :param names: ids of the tasks; ``id[3]`` is a single instance of a mapped task.
    :param is_in_instances: whether all tasks are in one mapped group; then only the XComs of the same instance count.
    :raises UnreadableRecord: if another version has written one.
    """
    upstream = UpstreamRuns([], {})
    for name in names:
        task_id, _, index = name.rstrip("]").partition("[")
        where: dict[str, Any] = {"map_indexes": int(index)} if index else {}
        if is_in_instances:
            where = {"map_indexes": ti.map_index}
        values = ti.xcom_pull(task_ids=[task_id], key=_KEY, **where)
        if not values or not all(values):
            upstream.reran.append(name)
            continue
        runs = [RUN.read(f"the XCom {_KEY!r} of task {task_id!r}", each) for each in values]
        if any(each["reran"] for each in runs):
            upstream.reran.append(name)
        upstream.runs[name] = " ".join(sorted(str(each["run"]) for each in runs))
    return upstream
