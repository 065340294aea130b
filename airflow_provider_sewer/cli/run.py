"""``sppe run``: one run in a terminal, from the first check to the summary."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.cli.say import say
from airflow_provider_sewer.cli.signals import stopping
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.runners.engine import Engine, Observer, Outcome, State
from airflow_provider_sewer.runners.observers import LogFiles, PlainLines, file_names
from airflow_provider_sewer.runners.plan import Wanted, chosen, make_plan
from airflow_provider_sewer.runners.state import StateFile, read_state, state_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from airflow_provider_sewer.core.settings import Settings
    from airflow_provider_sewer.core.workflow import Workflow


class How(NamedTuple):
    """How a workflow is to be run.

    :param wanted: which tasks.
    :param resume: leave out what has succeeded in the run before.
    :param state: the state file; one below ``.sewer/state`` if not said.
    :param jobs: how many tasks at once; as many as there are processors if not said.
    :param limits: how much there is of each resource.
    :param log_dir: folder for the log files; a new one below ``.sewer/logs`` if not said.
    """

    wanted: Wanted
    resume: bool
    state: str | None
    jobs: int | None
    limits: Mapping[str, int]
    log_dir: str | None


def run_in_terminal(workflow: Workflow, settings: Settings, how: How) -> int:
    """Run a workflow, show how it goes, and return the exit code.

    :raises SewerError: when it cannot be run at all; then nothing was.
    """
    part = chosen(workflow, how.wanted)
    observers: list[Observer] = []
    engine = Engine(part, settings, jobs=how.jobs, limits=how.limits, forced=how.wanted.forced, observers=observers)
    for warning in engine.check():
        say(f"sppe: {warning}; trying all the same, an earlier task may make it")
    logs = _log_files(how.log_dir or _new_log_dir(workflow.name), part)
    observers.append(logs)
    with ExitStack() as stack:
        state = stack.enter_context(StateFile(_state_path(how.state, workflow), workflow.name, keep=how.resume))
        observers.append(stack.enter_context(_display(part)))
        received = stack.enter_context(stopping(engine))
        outcomes = engine.run(state)
    _summarize(outcomes, logs)
    if received:
        return 128 + received[0]
    return 0 if all(outcome.state.is_success for outcome in outcomes.values()) else 1


def explained(workflow: Workflow, settings: Settings, wanted: Wanted, *, resume: bool, state: str | None) -> str:
    """Say of each task whether a run would run it, and why.

    :raises SewerError: when it could not be run at all.
    """
    done = read_state(_state_path(state, workflow), workflow.name) if resume else {}
    part = chosen(workflow, wanted).with_defaults(settings)
    verdicts = make_plan(part, done, wanted.forced).verdicts
    width = max(map(len, verdicts))
    words = {True: "runs", False: "does not run"}
    return "\n".join(
        f"{name:<{width}}  {words[verdict.must_run]:<12}  {verdict.why}"
        for name, verdict in ((name, verdicts[name]) for name in part.order)
    )


def _state_path(state: str | None, workflow: Workflow) -> str:
    file = workflow.source.file if workflow.source else ""
    return state or state_path(file_names([workflow.name])[workflow.name], file, os.path.join(".sewer", "state"))


def _new_log_dir(name: str) -> str:
    moment = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = file_names([name])[name]
    return os.path.join(".sewer", "logs", f"{folder}-{moment}-{os.getpid()}")


def _log_files(folder: str, workflow: Workflow) -> LogFiles:
    try:
        return LogFiles(folder, workflow.tasks)
    except OSError as error:
        raise SewerError(
            f"cannot make the log folder {folder}: {error.strerror}; name another with --log-dir"
        ) from None


def _display(workflow: Workflow) -> AbstractContextManager[Observer]:
    if sys.stdout.isatty():
        from airflow_provider_sewer.cli.table import LiveTable, live_console

        if console := live_console():
            return LiveTable(workflow, console)
    return nullcontext(PlainLines())


def _summarize(outcomes: dict[str, Outcome], logs: LogFiles) -> None:
    width = max(map(len, outcomes))
    lines = [
        f"  {name:<{width}}  {outcome.state.value:<11}  {outcome.seconds:7.1f} s" for name, outcome in outcomes.items()
    ]
    failures = [
        f"\n{name}: {outcome.reason}\nIts log: {logs.paths[name]}"
        for name, outcome in outcomes.items()
        if outcome.state is State.FAILED
    ]
    count = sum(outcome.state.is_success for outcome in outcomes.values())
    resting = sum(outcome.state in (State.UP_TO_DATE, State.DONE) for outcome in outcomes.values())
    of_these = f", {resting} of them without running" if resting else ""
    done = f"{count} of {len(outcomes)} tasks succeeded{of_these}; logs are in {logs.folder}"
    say("\n".join(["", *lines, *failures, "", done]))
