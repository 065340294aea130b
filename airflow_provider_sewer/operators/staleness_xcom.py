"""What an Airflow task tells those after it of the run that has made its products, and what it is told by those before.

Whether a task ran anew is not enough: one that follows it may have failed then, and meets it at rest in the next DAG
run. So a task also tells which run it was that has left its products; those after it keep that in their records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.formats import RUN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import Context

#: The XCom of a task that does not always run.
_KEY = "sewer_run"


class UpstreamRuns(NamedTuple):
    """What a task is told by those before it.

    :param ran_anew: the names of those that ran anew.
    :param runs: which run it was that has left the products of each, as far as they say.
    """

    reran: list[str]
    runs: dict[str, str]


def push_run_info(context: Context, run: str | None, *, ran_anew: bool) -> None:
    """Tell the tasks after this one whether it ran anew.

    :param run: which run it was that has left its products.
    """
    context["ti"].xcom_push(key=_KEY, value=RUN.written({"ran_anew": ran_anew, "run": run}))


def pull_upstream_runs(names: Iterable[str], context: Context, *, is_in_instances: bool) -> UpstreamRuns:
    """Return what the tasks before this one tell; one that says nothing always runs.

    :param names: their ids; of a mapped one, ``id[3]`` is a single instance.
    :param is_in_instances: whether they are all in one mapped group: then those of the same instance of it are meant.
    :raises UnreadableRecord: when another version has told it.
    """
    before = UpstreamRuns([], {})
    for name in names:
        task_id, _, index = name.rstrip("]").partition("[")
        where: dict[str, Any] = {"map_indexes": int(index)} if index else {}
        if is_in_instances:
            where = {"map_indexes": context["ti"].map_index}
        told = context["ti"].xcom_pull(task_ids=[task_id], key=_KEY, **where)
        if not told or not all(told):
            before.reran.append(name)
            continue
        runs = [RUN.read(f"the XCom {_KEY!r} of task {task_id!r}", each) for each in told]
        if any(each["ran_anew"] for each in runs):
            before.reran.append(name)
        before.runs[name] = " ".join(sorted(str(each["run"]) for each in runs))
    return before
