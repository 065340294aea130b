"""Which tasks of a workflow a run has to run, and why, as far as that can be said beforehand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_sewer.core.errors import (
    InterpreterError,
    InvalidTask,
    InvalidWorkflow,
    ModuleNotFound,
    SewerError,
    WorkdirError,
    unknown_name,
)
from airflow_provider_sewer.core.graph import EXPLICIT
from airflow_provider_sewer.core.paths import absolute_path
from airflow_provider_sewer.core.selection import selected
from airflow_provider_sewer.core.staleness import Decision
from airflow_provider_sewer.execution.code_fingerprint import Fingerprinter
from airflow_provider_sewer.execution.staged_products import existing_products, read_record
from airflow_provider_sewer.execution.state_file import FinishedTask
from airflow_provider_sewer.execution.task_runner import TaskRunner, missing_of, missing_products

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_provider_sewer.core.paths import Dependency
    from airflow_provider_sewer.core.selection import Texts
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.values import Result
    from airflow_provider_sewer.core.workflow import Workflow


class Selection(NamedTuple):
    """What a person wants to be run.

    :param select: which tasks (see :mod:`airflow_provider_sewer.core.selection`); all if not said.
    :param exclude: which of these not.
    :param forced: names of tasks to run in any case.
    """

    select: Texts = None
    exclude: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()


class Plan(NamedTuple):
    """What a run has before it.

    :param verdicts: for each task whether it has to run, and why.
    :param done: the tasks that have succeeded in an earlier run and are not run again.
    :param must: the tasks that run whatever their build mode says.
    """

    decisions: dict[str, Decision]
    done: dict[str, FinishedTask]
    required: dict[str, str]


def select_tasks(workflow: Workflow, wanted: Selection) -> tuple[Workflow, tuple[str, ...]]:
    """Return the part of a workflow that a person wants, and the names of those of its tasks that are forced.

    :raises SewerError: when a task is named that there is not, or that is forced and left out.
    """
    forced = [name for given in wanted.forced for name in _known(workflow, given)]
    part = selected(workflow, wanted.select, wanted.exclude)
    for name in forced:
        if name not in part.tasks:
            raise SewerError(f"task {name!r} is forced, but it is not among the tasks that are selected")
    return part, tuple(dict.fromkeys(forced))


def _known(workflow: Workflow, name: str) -> tuple[str, ...]:
    """Return the names of the tasks that are meant, also of one that is one task with another."""
    known = workflow.names_of(name)
    if not known:
        raise SewerError(unknown_name("task", name, workflow.tasks))
    return known


def make_plan(
    workflow: Workflow,
    known: Mapping[str, FinishedTask],
    forced: Collection[str] = (),
    *,
    resumes: bool = False,
    origins: Fingerprinter | None = None,
) -> Plan:
    """Say which tasks have to run, from what is on disk and what has succeeded before.

    :param workflow: its tasks with their settings settled.
    :param known: what has succeeded before; what it has left can be taken.
    :param forced: tasks to run in any case.
    :param resumes: what has succeeded before is done with, unless something about it is not as it was.
    :param origins: who knows code and environments.
    """
    must = dict.fromkeys(forced, "it was asked for")
    origins = origins or Fingerprinter()
    while True:
        plan = _planned(workflow, known, must, origins, resumes=resumes)
        needed = _producers_needed_again(workflow, plan)
        if not needed:
            return plan
        must |= needed


def rerun_upstream(workflow: Workflow, name: str, anew: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the tasks before one that ran anew: those of which it takes files, and the others."""
    otherwise = {task.name for task in upstream_by_value(workflow, name)}
    return (
        [up for up in workflow.upstream[name] if up in anew and up not in otherwise],
        [up for up in workflow.upstream[name] if up in anew and up in otherwise],
    )


def upstream_by_value(workflow: Workflow, name: str) -> list[Task]:
    """Return the tasks before one of which it takes something else than files."""
    return [workflow.tasks[up] for up, reasons in workflow.edge_reasons.reasons[name].items() if EXPLICIT in reasons]


def require_inputs(workflow: Workflow, forced: Collection[str] = ()) -> None:
    """Make sure that what nobody here makes is there.

    :param forced: tasks that run in any case.
    :raises SewerError: naming the first that is not there, or is not whole.
    """
    for task, dependency in workflow.edge_reasons.external_inputs:
        if task.run_policy.run_when != "never" or task.name in forced:
            _require(workflow, task, dependency)
    for task in workflow.tasks.values():
        if task.run_policy.run_when == "never" and task.name not in forced:
            _require_products(task)


def require_results(part: Workflow, known: Mapping[str, FinishedTask], forced: Collection[str] = ()) -> None:
    """Make sure that there is what tasks take from the results of others that are not to run.

    :param part: those that are.
    :param known: what has succeeded before.
    :param forced: tasks that run in any case.
    :raises InvalidTask: naming the first result that is not there, or has no such part.
    """
    for task in part.tasks.values():
        if task.name in forced or not _rests_whatever_it_is_given(task):
            for result in task.results:
                if part.name_of(result.task) is None:
                    _require_result(task, result, known.get(result.task.name))


def _rests_whatever_it_is_given(task: Task) -> bool:
    mode = task.run_policy.run_when
    return mode == "never" or (mode == "missing" and TaskRunner(task, {}).missing_inputs() is None)


def _require_result(task: Task, result: Result, done: FinishedTask | None) -> None:
    if done is None:
        raise InvalidTask(
            f"task {task.name!r} takes {result!r}; task {result.task.name!r} is not among those to run, and no earlier "
            f"run has left its result; run {result.task.name!r} as well",
            task.source,
        )
    try:
        result.resolve(done.result)
    except InvalidTask as error:
        raise InvalidTask(f"task {task.name!r}: {error}", task.source) from None


def _require(workflow: Workflow, task: Task, dependency: Dependency) -> None:
    file = absolute_path(dependency.path, task.settings.workdir)
    is_there = os.path.exists(file)
    maker = workflow.excluded.producers.get((task.name, dependency.path))
    if maker is None and not is_there:
        raise missing_products(task, dependency, file)
    if maker is not None and not is_there:
        raise missing_of(task, dependency, maker, f"{file} does not exist")
    record = read_record(file) if maker is not None else None
    if maker is not None and record is not None and not record.is_complete:
        raise missing_of(task, dependency, maker, f"{file} was being made when an earlier run was ended")


def _require_products(task: Task) -> None:
    for product in task.products:
        file = absolute_path(product.path, task.settings.workdir)
        if not os.path.exists(file):
            raise InvalidWorkflow(
                f"task {task.name!r} never runs, and its product {product.path!r} does not exist: {file}; put it "
                f"there, or have it made with --force {task.name!r}",
                task.source,
            )


def _planned(
    workflow: Workflow,
    known: Mapping[str, FinishedTask],
    must: dict[str, str],
    origins: Fingerprinter,
    *,
    resumes: bool,
) -> Plan:
    done = known if resumes else {}
    verdicts: dict[str, Decision] = {}
    still: dict[str, FinishedTask] = {}
    left = dict(known)
    for name in workflow.order:
        task = workflow.tasks[name]
        anew = [up for up in workflow.upstream[name] if verdicts[up].must_run]
        run = TaskRunner(
            task, results_for(workflow, task, [left]), after=upstream_by_value(workflow, name), origins=origins
        )
        if name in must:
            verdicts[name] = Decision.run(must[name])
        elif name in done and not anew and _not_done_reason(workflow, name, done, run) is None:
            verdicts[name] = Decision.skip("it has succeeded in the run that is resumed")
            still[name] = done[name]
        else:
            verdicts[name], result = _decision(workflow, name, run, {up: verdicts[up].is_sure for up in anew})
            if resumes and verdicts[name].must_run and task.run_policy.run_when == "always":
                # It would not run if it were done with: why it is not says more than its mode.
                verdicts[name] = verdicts[name]._replace(reason=_rerun_reason(workflow, name, done, run, verdicts))
            if not verdicts[name].must_run:
                left.setdefault(name, FinishedTask("", result))
        if verdicts[name].must_run:
            left.pop(name, None)  # what it leaves then is another result
    return Plan(verdicts, still, must)


def _rerun_reason(
    workflow: Workflow, name: str, done: Mapping[str, FinishedTask], run: TaskRunner, verdicts: Mapping[str, Decision]
) -> str:
    """Return why a run that resumes another one runs a task once more."""
    if name not in done:
        return "it has not succeeded yet"
    for up in workflow.upstream[name]:
        if verdicts[up].must_run:
            return f"{up!r} {'runs' if verdicts[up].is_sure else 'may run'} before it"
    return _not_done_reason(workflow, name, done, run) or "it always runs"


def _not_done_reason(workflow: Workflow, name: str, done: Mapping[str, FinishedTask], run: TaskRunner) -> str | None:
    """Return why a task that has succeeded has to be looked at once more, ``None`` if it has not."""
    if done[name].command is None:  # all that is known is that it has succeeded
        return run.missing_inputs()
    for up in workflow.upstream[name]:
        if up in done and done[up].at > done[name].at:
            return f"{up!r} has succeeded once more since"
    try:
        if done[name].command != run.command():
            return "it has succeeded with other parameters"
        return run.missing_inputs() or (
            run.has_changed() if workflow.tasks[name].run_policy.run_when != "never" else None
        )
    except InvalidTask:
        return "what it is given is not known any more"


def _decision(workflow: Workflow, name: str, run: TaskRunner, anew: Mapping[str, bool]) -> tuple[Decision, Any]:
    """Say whether a task has to run, as far as that can be said.

    :param anew: the tasks before it that run, and whether that is sure.
    """
    task = workflow.tasks[name]
    surely = [up for up, is_sure in anew.items() if is_sure]
    by_content = task.run_policy.compare == "content"
    left_open = {path for up in anew for path in workflow.edge_reasons.reasons[name][up]} if by_content else set()
    try:
        verdict, result = run.decision(*rerun_upstream(workflow, name, surely), is_beforehand=True, left_open=left_open)
        if verdict.must_run or task.run_policy.run_when != "stale" or not anew:
            return verdict, result
        verdict, _ = run.decision(*rerun_upstream(workflow, name, list(anew)), is_beforehand=True, left_open=left_open)
        if verdict.must_run:
            return verdict._replace(is_sure=False), None
        why = f"{next(iter(anew))!r} runs before it, and what that makes may be what it was"
        return Decision(must_run=True, reason=why, is_sure=False), None
    except InvalidTask:  # a result that is not there yet
        why = "what it is given is known only when the tasks before it have run"
        return Decision(must_run=True, reason=why, is_sure=False), None
    except (InterpreterError, ModuleNotFound, WorkdirError):
        why = "its code or its environment cannot be found yet"
        return Decision(must_run=True, reason=why, is_sure=False), None


def _producers_needed_again(workflow: Workflow, plan: Plan) -> dict[str, str]:
    """Return the tasks whose temporary products were removed after use, and are needed once more."""
    needed: dict[str, str] = {}
    for name in reversed(workflow.order):
        if not plan.decisions[name].must_run or not plan.decisions[name].is_sure:
            for product, user in _missing(workflow, workflow.tasks[name], plan, needed):
                needed[name] = f"{product} was removed after use, and {user!r} needs it again"
    return {name: why for name, why in needed.items() if name not in plan.required}


def _missing(workflow: Workflow, task: Task, plan: Plan, needed: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    temporary = [product for product in task.products if product.temporary]
    for product, made in zip(temporary, existing_products(temporary, task.settings.workdir), strict=True):
        if made.record is not None and made.record.is_removed and not os.path.exists(made.file):
            for user in workflow.edge_reasons.consumers.get((task.name, product.path), ()):
                if user in needed or plan.decisions[user].must_run:
                    yield product.path, user


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
