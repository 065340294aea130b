"""``sppe run``: one run in a terminal, from the first check to the summary."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_provider_sewer.cli.say import say
from airflow_provider_sewer.cli.signals import stopping
from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.runners.engine import Engine, Observer, Outcome, State
from airflow_provider_sewer.runners.observers import LogFiles, PlainLines, file_names

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow_provider_sewer.core.settings import Settings
    from airflow_provider_sewer.core.workflow import Workflow


def run_in_terminal(workflow: Workflow, settings: Settings, *, jobs: int | None, log_dir: str | None) -> int:
    """Run a workflow, show how it goes, and return the exit code.

    :param jobs: how many tasks at once; as many as there are processors if not said.
    :param log_dir: folder for the log files; a new one below ``.sewer/logs`` if not said.
    :raises SewerError: when it cannot be run at all; then nothing was.
    """
    observers: list[Observer] = []
    engine = Engine(workflow, settings, jobs=jobs, observers=observers)
    for warning in engine.check():
        say(f"sppe: {warning}; trying all the same, an earlier task may make it")
    logs = _log_files(log_dir or _new_log_dir(workflow.name), workflow)
    observers.append(logs)
    with ExitStack() as stack:
        observers.append(stack.enter_context(_display(workflow)))
        received = stack.enter_context(stopping(engine))
        outcomes = engine.run()
    _summarize(outcomes, logs)
    if received:
        return 128 + received[0]
    return 0 if all(outcome.state is State.SUCCEEDED for outcome in outcomes.values()) else 1


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
        f"  {name:<{width}}  {outcome.state.value:<9}  {outcome.seconds:7.1f} s" for name, outcome in outcomes.items()
    ]
    failures = [
        f"\n{name}: {outcome.reason}\nIts log: {logs.paths[name]}"
        for name, outcome in outcomes.items()
        if outcome.state is State.FAILED
    ]
    count = sum(outcome.state is State.SUCCEEDED for outcome in outcomes.values())
    done = f"{count} of {len(outcomes)} tasks succeeded; logs are in {logs.folder}"
    say("\n".join(["", *lines, *failures, "", done]))
