"""Workflows of generated modules, and an observer that records their events."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.task_states import Outcome, TaskState
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, FAILED, NOT_RUN, STOPPED = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.UPSTREAM_FAILED, TaskState.STOPPED
#: The beginning of a module that sends words to the test.
HOLD = """
    import fcntl, os, signal, sys
    life = os.open(sys.argv[1], os.O_WRONLY)
    def put(word): os.write(life, word.encode() + b"\\n")
"""
#: Waits for the gate whose path is the second argument.
PASS = "fcntl.flock(open(sys.argv[2]), fcntl.LOCK_SH)"


class Witness:
    """Observer that records all events, and lets a test wait for output."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.text: dict[str, str] = {}
        self._changed = threading.Condition()

    def on_start(self, task: Task, _line: str, _workdir: str | None) -> None:
        self._record("started", task.name)

    def on_output(self, task: Task, _stream: Stream, pieces: Sequence[str]) -> None:
        with self._changed:
            self.text[task.name] = self.text.get(task.name, "") + "".join(pieces)
            self._changed.notify_all()

    def on_end(self, task: Task, outcome: Outcome) -> None:
        self._record(outcome.state.value, task.name)

    def _record(self, event: str, name: str) -> None:
        with self._changed:
            self.events.append((event, name))
            self._changed.notify_all()

    def expect_output(self, name: str) -> None:
        """Wait until a task has written something."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.text.get(name), 60), self.events


class Plan:
    """Tasks with generated modules, and the runner of them."""

    def __init__(self, modules: Any, witness: Witness) -> None:
        self._modules = modules
        self._witness = witness
        self._tasks: list[Task] = []

    def task(self, name: str, source: str = "", *args: str, after: Sequence[str] = (), **fields: Any) -> None:
        """Add a task."""
        module = fields.pop("module", None) or self._modules.write(source)
        self._tasks.append(Task(name, module, args=args, depends_on=list(after), **fields))

    def runner(self, *more: Any, **options: Any) -> WorkflowRunner:
        """Return the runner of all tasks added so far."""
        observers = [self._witness, *more]
        return WorkflowRunner(Workflow("plan", self._tasks), self._modules.settings(), observers=observers, **options)

    def run(self, **options: Any) -> dict[str, Outcome]:
        """Run the tasks."""
        return self.runner(**options).run()


def states(outcomes: dict[str, Outcome]) -> dict[str, TaskState]:
    return {name: outcome.state for name, outcome in outcomes.items()}
