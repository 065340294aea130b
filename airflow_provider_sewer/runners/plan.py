"""Which tasks of a workflow a run has to run, and why, as far as that can be said beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.edges import STATED
from airflow_provider_sewer.core.errors import SewerError, unknown_name
from airflow_provider_sewer.core.freshness import Verdict
from airflow_provider_sewer.runners.products import made_before
from airflow_provider_sewer.runners.state import Done
from airflow_provider_sewer.runners.task_run import TaskRun

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow


class Wanted(NamedTuple):
    """What a person wants to be run.

    :param only: names of the only tasks to run; all if empty.
    :param start: names of tasks to run from: these, and all that lies after them.
    :param forced: names of tasks to run in any case.
    """

    only: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()


class Plan(NamedTuple):
    """What a run has before it.

    :param verdicts: for each task whether it has to run, and why.
    :param done: the tasks that have succeeded in an earlier run and are not run again.
    :param must: the tasks that run whatever their build mode says.
    """

    verdicts: dict[str, Verdict]
    done: dict[str, Done]
    must: dict[str, str]


def chosen(workflow: Workflow, wanted: Wanted) -> Workflow:
    """Return the part of a workflow that a person wants.

    :raises SewerError: when a task is named that there is not.
    """
    for name in (*wanted.only, *wanted.start, *wanted.forced):
        if name not in workflow.tasks:
            raise SewerError(unknown_name("task", name, workflow.tasks))
    if not wanted.only and not wanted.start:
        return workflow
    names = set(wanted.only) | _downstream(workflow, wanted.start)
    for name in wanted.forced:
        if name not in names:
            raise SewerError(f"task {name!r} is forced, but it is not among the tasks that are chosen")
    return workflow.part(names)


def make_plan(workflow: Workflow, done: Mapping[str, Done], forced: Collection[str] = ()) -> Plan:
    """Say which tasks have to run, from what is on disk and what has succeeded before.

    :param workflow: its tasks with their settings settled.
    :param done: what has succeeded in an earlier run that this one resumes.
    :param forced: tasks to run in any case.
    """
    must = dict.fromkeys(forced, "it was asked for")
    while True:
        plan = _planned(workflow, done, must)
        needed = _makers_needed_again(workflow, plan)
        if not needed:
            return plan
        must |= needed


def ran_anew(workflow: Workflow, name: str, anew: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the tasks before one that ran anew: those of which it takes files, and the others."""
    reasons = workflow.why.reasons[name]
    of_files = [up for up in reasons if up in anew and STATED not in reasons[up]]
    return of_files, [up for up in reasons if up in anew and STATED in reasons[up]]


def _planned(workflow: Workflow, done: Mapping[str, Done], must: dict[str, str]) -> Plan:
    verdicts: dict[str, Verdict] = {}
    still: dict[str, Done] = {}
    left: dict[str, Done] = dict(done)
    for name in workflow.order:
        task = workflow.tasks[name]
        anew = [up for up in workflow.upstream[name] if verdicts[up].must_run]
        run = TaskRun(task, results_for(workflow, task, [left]))
        try:
            if name in must:
                verdicts[name] = Verdict.run(must[name])
            elif name in done and not anew and done[name].command in (None, run.command()):
                verdicts[name] = Verdict.rest("it has succeeded in the run that is resumed")
                still[name] = done[name]
            else:
                verdicts[name], result = run.verdict(*ran_anew(workflow, name, anew))
                left.setdefault(name, Done("", result))
            if verdicts[name].must_run:
                left.pop(name, None)  # what it leaves then is another result
        except SewerError:  # a result that is not there yet
            verdicts[name] = Verdict.run("what it is given is known only when the tasks before it have run")
    return Plan(verdicts, still, must)


def _makers_needed_again(workflow: Workflow, plan: Plan) -> dict[str, str]:
    """Return the tasks whose temporary products were removed after use, and are needed once more."""
    needed = {}
    for name in reversed(workflow.order):
        if not plan.verdicts[name].must_run:
            for product, user in _lacked(workflow, workflow.tasks[name], plan):
                needed[name] = f"{product} was removed after use, and {user!r} needs it again"
    return needed


def _lacked(workflow: Workflow, task: Task, plan: Plan) -> Iterable[tuple[str, str]]:
    temporary = [product for product in task.products if product.temporary]
    for product, made in zip(temporary, made_before(temporary, task.settings.workdir), strict=True):
        for user in workflow.why.users.get((task.name, product.path), ()):
            if user in plan.verdicts and plan.verdicts[user].must_run and made.record and made.record.is_removed:
                yield product.path, user


def _downstream(workflow: Workflow, names: Iterable[str]) -> set[str]:
    found = set(names)
    for name in workflow.order:
        if not found.isdisjoint(workflow.upstream[name]):
            found.add(name)
    return found


def results_for(workflow: Workflow, task: Task, known: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results that a task is given, by the names of the tasks that it takes them from.

    :param known: mappings from tasks' names to what has a ``result``; the first one that knows a task counts.
    """
    results = {}
    for marker in task.results:
        name = workflow.name_of(marker.task) or marker.task.name
        ended = next((each[name] for each in known if name in each), None)
        if ended is not None:
            results[marker.task.name] = ended.result
    return results
