"""``sppe run``: one run in a terminal, from the first check to the summary."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.runners.engine import Engine, Observer, Outcome, State
from airflow_provider_sewer.runners.observers import LogFiles, PlainLines, file_names

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        print(f"sppe: {warning}; trying all the same, an earlier task may make it", file=sys.stderr)
    logs = _log_files(log_dir or _new_log_dir(workflow.name), workflow)
    observers.append(logs)
    with ExitStack() as stack:
        observers.append(stack.enter_context(_display(workflow)))
        received = stack.enter_context(_stopped_by_signals(engine))
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


@contextmanager
def _display(workflow: Workflow) -> Iterator[Any]:
    if sys.stdout.isatty():
        from airflow_provider_sewer.cli.table import LiveTable

        with LiveTable(workflow) as table:
            yield table
    else:
        yield PlainLines()


@contextmanager
def _stopped_by_signals(engine: Engine) -> Iterator[list[int]]:
    """Stop the engine at the first signal, at once at the second; and collect them."""
    received: list[int] = []

    def stop(number: int, _: Any) -> None:
        received.append(number)
        engine.stop(at_once=len(received) > 1)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


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
    print("\n".join(["", *lines, *failures, "", done]), file=sys.stderr)
