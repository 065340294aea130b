"""Plan of a run: which tasks of a workflow have to run, and why, as far as this is known beforehand."""

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
from airflow_provider_sewer.core.paths import absolute_path, located
from airflow_provider_sewer.core.selection import selected
from airflow_provider_sewer.core.staleness import Decision
from airflow_provider_sewer.execution.code_fingerprint import Fingerprinter
from airflow_provider_sewer.execution.product_records import existing_products, read_record
from airflow_provider_sewer.execution.state_file import FinishedTask
from airflow_provider_sewer.execution.task_runner import (
    TaskRunner,
    missing_dependency_error,
    missing_product_error,
    require_stdin,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow_provider_sewer.core.paths import Dependency
    from airflow_provider_sewer.core.placeholders import Result
    from airflow_provider_sewer.core.selection import Texts
    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow


class Selection(NamedTuple):
    """Tasks that the user requests.

    :param select: selectors (see :mod:`airflow_provider_sewer.core.selection`); all tasks if omitted.
    :param exclude: selectors of the tasks to leave out.
    :param forced: names of tasks that run even if they are up to date.
    """

    select: Texts = None
    exclude: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()


class Plan(NamedTuple):
    """Decisions about the tasks of a run.

    :param decisions: for each task, whether it has to run, and why.
    :param done: the tasks that succeeded in an earlier run and are not run again.
    :param required: the tasks that run regardless of their ``run_when``, with the reason.
    """

    decisions: dict[str, Decision]
    done: dict[str, FinishedTask]
    required: dict[str, str]


def select_tasks(workflow: Workflow, requested: Selection) -> tuple[Workflow, tuple[str, ...]]:
    """Return the selected subset of a workflow, and the names of its forced tasks.

    :raises SewerError: when a name matches no task, or a forced task is not selected.
    """
    forced = [name for given in requested.forced for name in _known(workflow, given)]
    part = selected(workflow, requested.select, requested.exclude)
    for name in forced:
        if name not in part.tasks:
            raise SewerError(f"task {name!r} is forced, but it is not selected")
    return part, tuple(dict.fromkeys(forced))


def _known(workflow: Workflow, name: str) -> tuple[str, ...]:
    """Return the tasks that a name refers to; a name that was merged into another task refers to that one."""
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
    """Decide which tasks have to run, from the files on disk and the tasks that succeeded before.

    :param workflow: the workflow, the settings of its tasks resolved.
    :param known: the tasks that succeeded before; their results can be used.
    :param forced: tasks that run even if they are up to date.
    :param resumes: skip tasks that succeeded before, unless something about them has changed.
    :param origins: computes the fingerprints of code and environments.
    """
    must = dict.fromkeys(forced, "it is forced")
    origins = origins or Fingerprinter()
    while True:
        plan = _planned(workflow, known, must, origins, resumes=resumes)
        needed = _producers_needed_again(workflow, plan)
        if not needed:
            return plan
        must |= needed


def rerun_upstream(workflow: Workflow, name: str, rerun: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the upstream tasks of a task that ran again: those it depends on by files only, and the others."""
    by_value = {task.name for task in upstream_by_value(workflow, name)}
    return (
        [up for up in workflow.upstream[name] if up in rerun and up not in by_value],
        [up for up in workflow.upstream[name] if up in rerun and up in by_value],
    )


def upstream_by_value(workflow: Workflow, name: str) -> list[Task]:
    """Return the upstream tasks of a task that it depends on by more than files."""
    return [workflow.tasks[up] for up, reasons in workflow.edge_reasons.reasons[name].items() if EXPLICIT in reasons]


def require_inputs(workflow: Workflow, forced: Collection[str] = ()) -> None:
    """Require that the external inputs exist.

    :param forced: tasks that run even if they are up to date.
    :raises SewerError: naming the first input that is missing or incomplete.
    """
    for task, dependency in workflow.edge_reasons.external_inputs:
        if task.run_policy.run_when != "never" or task.name in forced:
            _require(workflow, task, dependency)
    for task in workflow.tasks.values():
        if task.run_policy.run_when == "never" and task.name not in forced:
            _require_products(task)


def require_results(part: Workflow, known: Mapping[str, FinishedTask], forced: Collection[str] = ()) -> None:
    """Require that earlier runs saved the results that the selected tasks take from unselected ones.

    :param part: the selected tasks.
    :param known: the tasks that succeeded before.
    :param forced: tasks that run even if they are up to date.
    :raises InvalidTask: naming the first result that is missing, or lacks the requested key.
    """
    for task in part.tasks.values():
        if task.name in forced or not _skips_for_any_parameters(task):
            for result in task.results:
                if part.name_of(result.task) is None:
                    _require_result(task, result, known.get(result.task.name))


def _skips_for_any_parameters(task: Task) -> bool:
    mode = task.run_policy.run_when
    return mode == "never" or (mode == "missing" and TaskRunner(task, {}).missing_product() is None)


def _require_result(task: Task, result: Result, done: FinishedTask | None) -> None:
    if done is None:
        raise InvalidTask(
            f"task {task.name!r} takes {result!r}; task {result.task.name!r} is not selected, and no earlier run saved "
            f"its result; run {result.task.name!r} as well",
            task.source,
        )
    try:
        result.resolve(done.result)
    except InvalidTask as error:
        raise InvalidTask(f"task {task.name!r}: {error}", task.source) from None


def _require(workflow: Workflow, task: Task, dependency: Dependency) -> None:
    file = absolute_path(dependency.path, task.settings.workdir)
    is_there = os.path.exists(file)
    producer = workflow.excluded.producers.get((task.name, dependency.path))
    if producer is None and not is_there:
        raise missing_dependency_error(task, dependency, file)
    if producer is not None and not is_there:
        raise missing_product_error(task, dependency, producer, f"{file} does not exist")
    require_stdin(task)
    record = read_record(file) if producer is not None else None
    if producer is not None and record is not None and not record.is_complete:
        raise missing_product_error(
            task, dependency, producer, f"{file} was being written when an earlier run was killed"
        )


def _require_products(task: Task) -> None:
    for product, file in located(task.products, task.settings.workdir):
        if not os.path.exists(file):
            raise InvalidWorkflow(
                f"task {task.name!r} never runs, and its product {product.path!r} does not exist: {file}; create it, "
                f"or produce it with --force {task.name!r}",
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
    decisions: dict[str, Decision] = {}
    still: dict[str, FinishedTask] = {}
    finished = dict(known)
    for name in workflow.order:
        task = workflow.tasks[name]
        rerun = [up for up in workflow.upstream[name] if decisions[up].must_run]
        run = TaskRunner(
            task, results_for(workflow, task, [finished]), after=upstream_by_value(workflow, name), origins=origins
        )
        if name in must:
            decisions[name] = Decision.run(must[name])
        elif name in done and not rerun and _not_done_reason(workflow, name, done, run) is None:
            decisions[name] = Decision.skip("it succeeded in the resumed run")
            still[name] = done[name]
        else:
            decisions[name], result = _decision(workflow, name, run, {up: decisions[up].is_sure for up in rerun})
            if resumes and decisions[name].must_run and task.run_policy.run_when == "always":
                # A finished task would be skipped: the reason why it is not finished is more useful than its mode.
                decisions[name] = decisions[name]._replace(reason=_rerun_reason(workflow, name, done, run, decisions))
            if not decisions[name].must_run:
                finished.setdefault(name, FinishedTask("", result))
        if decisions[name].must_run:
            finished.pop(name, None)  # this run gives it another result
    return Plan(decisions, still, must)


def _rerun_reason(
    workflow: Workflow, name: str, done: Mapping[str, FinishedTask], run: TaskRunner, decisions: Mapping[str, Decision]
) -> str:
    """Return why a resuming run runs a task again."""
    if name not in done:
        return "it has not succeeded yet"
    for up in workflow.upstream[name]:
        if decisions[up].must_run:
            return f"{up!r} {'runs' if decisions[up].is_sure else 'may run'} before it"
    return _not_done_reason(workflow, name, done, run) or "it always runs"


def _not_done_reason(workflow: Workflow, name: str, done: Mapping[str, FinishedTask], run: TaskRunner) -> str | None:
    """Return why a task that succeeded has to be decided again; ``None`` if it is finished."""
    if done[name].command is None:  # only the success itself is known
        return run.missing_product()
    for up in workflow.upstream[name]:
        if up in done and done[up].at > done[name].at:
            return f"{up!r} has succeeded again since"
    try:
        if done[name].command != run.command():
            return "it succeeded with other parameters"
        return run.missing_product() or (
            run.has_changed() if workflow.tasks[name].run_policy.run_when != "never" else None
        )
    except InvalidTask:
        return "a result that it takes is no longer known"


def _decision(workflow: Workflow, name: str, run: TaskRunner, rerun: Mapping[str, bool]) -> tuple[Decision, Any]:
    """Return whether a task has to run, as far as this is known, and its previous result.

    :param rerun: the upstream tasks that run, and whether this is certain.
    """
    task = workflow.tasks[name]
    surely = [up for up, is_sure in rerun.items() if is_sure]
    by_content = task.run_policy.compare == "content"
    left_open = {path for up in rerun for path in workflow.edge_reasons.reasons[name][up]} if by_content else set()
    try:
        decision, result = run.decision(
            *rerun_upstream(workflow, name, surely), is_beforehand=True, left_open=left_open
        )
        if decision.must_run or task.run_policy.run_when != "stale" or not rerun:
            return decision, result
        decision, _ = run.decision(
            *rerun_upstream(workflow, name, list(rerun)), is_beforehand=True, left_open=left_open
        )
        if decision.must_run:
            return decision._replace(is_sure=False), None
        reason = f"{next(iter(rerun))!r} runs before it and may produce the same files"
        return Decision(must_run=True, reason=reason, is_sure=False), None
    except InvalidTask:  # a result that does not exist yet
        reason = "its parameters are known only when its upstream tasks have run"
        return Decision(must_run=True, reason=reason, is_sure=False), None
    except (InterpreterError, ModuleNotFound, WorkdirError):
        reason = "its code or its environment cannot be found yet"
        return Decision(must_run=True, reason=reason, is_sure=False), None


def _producers_needed_again(workflow: Workflow, plan: Plan) -> dict[str, str]:
    """Return the tasks whose temporary products were removed after use and are needed again, with the reason."""
    needed: dict[str, str] = {}
    for name in reversed(workflow.order):
        if not plan.decisions[name].must_run or not plan.decisions[name].is_sure:
            for product, user in _missing(workflow, workflow.tasks[name], plan, needed):
                needed[name] = f"{product} was removed after use, and {user!r} needs it again"
    return {name: reason for name, reason in needed.items() if name not in plan.required}


def _missing(workflow: Workflow, task: Task, plan: Plan, needed: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    temporary = [product for product in task.products if product.temporary]
    for product, state in zip(temporary, existing_products(located(temporary, task.settings.workdir)), strict=True):
        if state.record is not None and state.record.is_removed and not os.path.exists(state.file):
            for user in workflow.edge_reasons.consumers.get((task.name, product.path), ()):
                if user in needed or plan.decisions[user].must_run:
                    yield product.path, user


def results_for(workflow: Workflow, task: Task, known: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results that a task takes, by the names of the tasks that they come from.

    :param known: mappings from task names to objects with a ``result``; the first that contains the task is used.
    """
    results = {}
    for marker in task.results:
        name = workflow.name_of(marker.task) or marker.task.name
        ended = next((each[name] for each in known if name in each), None)
        if ended is not None:
            results[marker.task.name] = ended.result
    return results
