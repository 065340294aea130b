"""Observers of a run: events, masking, and errors."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.output import Stream
from airflow_provider_sewer.execution.task_states import Outcome
from airflow_provider_sewer.execution.workflow_runner import WorkflowRunner
from tests.execution.workflow_helpers import FAILED, HOLD, NOT_RUN, OK, STOPPED, Witness, states

if TYPE_CHECKING:
    from collections.abc import Sequence


class Failing(Witness):
    """An observer that fails at some point, for one task."""

    def __init__(self, at: str, error: BaseException) -> None:
        super().__init__()
        self._at = at
        self._error = error

    def _fail(self, at: str, task: Task) -> None:
        if (at, task.name) == (self._at, "watched"):
            raise self._error

    def on_start(self, task: Task, line: str, workdir: str | None) -> None:
        self._fail("started", task)

    def on_output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        self._fail("output", task)

    def on_end(self, task: Task, outcome: Outcome) -> None:
        self._fail("ended", task)


@pytest.mark.parametrize("error", [OSError("the disk is full"), SystemExit("the disk is full")], ids=["error", "exit"])
@pytest.mark.parametrize("at", ["started", "output", "ended"])
def test_failing_observer_fails_its_task_only(at: str, error: BaseException, plan, witness) -> None:
    """Where an observer fails, its task fails, other observers are notified, and the other tasks run."""
    plan.task("watched", "print('hello')")
    plan.task("after it", after=["watched"])
    plan.task("other", "print('hello')")

    outcomes = plan.runner(Failing(at, error), jobs=1).run()

    assert states(outcomes) == {"watched": FAILED, "after it": NOT_RUN, "other": OK}
    assert "the disk is full" in outcomes["watched"].reason
    assert [name for event, name in witness.events if event != "started"] == ["watched", "after it", "other"]


def test_failing_observer_does_not_block_others(plan, modules, witness) -> None:
    """An observer that fails at the end of a task does not block the notification of the next one."""
    plan.task("watched")
    runner = WorkflowRunner(
        Workflow("plan", plan._tasks), modules.settings(), observers=[Failing("ended", OSError("full")), witness]
    )

    runner.run()

    assert ("failed", "watched") in witness.events


def test_failing_log_observer_ends_process_tree(plan, lifeline) -> None:
    """A task whose output cannot be recorded is ended with all it has started."""
    plan.task(
        "watched", HOLD + "    os.fork() or os.setsid(); put('here'); print('hello'); signal.pause()", lifeline.path
    )

    outcomes = plan.runner(Failing("output", OSError("the disk is full"))).run()

    assert outcomes["watched"].state is FAILED
    lifeline.expect_end()


def test_closed_output_stops_the_run(plan, lifeline) -> None:
    """When the reader closes the output, the whole run is stopped at once."""
    plan.task("long", HOLD + "    put('here'); signal.pause()", lifeline.path)
    plan.task("watched", "print('hello')")
    plan.task("after it", after=["watched"])

    outcomes = plan.runner(Failing("output", BrokenPipeError()), jobs=2).run()

    assert states(outcomes) == {"long": STOPPED, "watched": FAILED, "after it": STOPPED}
    assert outcomes["watched"].reason == "the reader of the run's output has closed it"


def test_stop_ends_tasks_while_observer_blocks(plan, lifeline, background) -> None:
    """A stop ends the tasks even while the thread that follows them is stuck in handing on their output."""

    class Stalled(Witness):
        def __init__(self) -> None:
            super().__init__()
            self.goes_on: queue.SimpleQueue[None] = queue.SimpleQueue()

        def on_output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
            super().on_output(task, stream, pieces)
            self.goes_on.get(timeout=120)

    stalled = Stalled()
    plan.task("talks", HOLD + "    put('here'); print('hello'); signal.pause()", lifeline.path)
    runner = plan.runner(stalled, grace=0.2)

    run = background(runner.run)
    stalled.expect_output("talks")
    runner.stop()

    lifeline.expect_end()
    stalled.goes_on.put(None)
    assert run.result()["talks"].state is STOPPED


def test_secret_variable_is_masked_in_command_and_output(plan, witness, modules) -> None:
    """Neither the command line nor the output shows the value of a variable whose name looks secret."""
    source = "import os; print('it is', os.environ['API_TOKEN'])"
    plan.task("a", source, "hunter2-xyz", env={**modules.settings().env, "API_TOKEN": "hunter2-xyz"})

    outcome = plan.run()["a"]

    assert outcome.result == "it is ***"
    assert "hunter2" not in repr(witness.events)
