"""Run a whole workflow on this machine: each task as soon as what it waits for has succeeded."""

from __future__ import annotations

import enum
import itertools
import os
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from airflow_provider_sewer.core.errors import InvalidTask, ModuleStopped, SewerError
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.core.templates import find_template
from airflow_provider_sewer.runners.guardian import Guardian
from airflow_provider_sewer.runners.module import GRACE, ModuleRun, new_mark
from airflow_provider_sewer.runners.preflight import check_surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.runners.output import Stream


class State(enum.Enum):
    """How far a task has come."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_RUN = "not run"
    STOPPED = "stopped"


class Outcome(NamedTuple):
    """How a task ended.

    :param state: what became of it.
    :param seconds: how long it ran.
    :param result: the value it left (see :class:`~airflow_provider_sewer.runners.module.ModuleResult`).
    :param reason: why it did not succeed.
    """

    state: State
    seconds: float = 0.0
    result: Any = None
    reason: str = ""


class Observer(Protocol):
    """Somebody who is told what happens. Called from several threads; for one task, in order."""

    def started(self, task: Task, command_line: str, workdir: str | None) -> None:
        """Hear that a task's process is about to start."""

    def output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        """Hear what a task has written (pieces as in :class:`~airflow_provider_sewer.runners.output.Sink`)."""

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Hear how a task has ended, also one that never started."""


class Engine:
    """One run of a workflow.

    :param workflow: what to run.
    :param settings: where its tasks run, as far as they do not say so themselves.
    :param jobs: how many tasks at once; as many as there are processors if not said.
    :param observers: who is told what happens.
    :param grace: seconds between SIGTERM and SIGKILL when tasks are stopped.
    """

    def __init__(
        self,
        workflow: Workflow,
        settings: Settings = Settings(),
        *,
        jobs: int | None = None,
        observers: Sequence[Observer] = (),
        grace: float = GRACE,
    ) -> None:
        self._tasks = {name: task.with_defaults(settings) for name, task in workflow.tasks.items()}
        self._upstream = workflow.upstream
        self._jobs = jobs or os.cpu_count() or 1
        self._observers = observers
        self._grace = grace
        self._mark = new_mark()
        self._numbers = itertools.count(1)
        self._running: dict[str, ModuleRun] = {}
        self._stopped = False

    def check(self) -> list[str]:
        """Look for what would go wrong before anything runs.

        :returns: what is missing only for tasks that come later, and that an earlier one may yet make.
        :raises SewerError: when a value is known only to Airflow, or a first task cannot run.
        """
        for task in self._tasks.values():
            _refuse_templates(task)
        return check_surroundings([(task, not self._upstream[name]) for name, task in self._tasks.items()])

    def run(self) -> dict[str, Outcome]:
        """Run the tasks and return how each has ended, in the order of the workflow."""
        outcomes: dict[str, Outcome] = {}
        sorter = TopologicalSorter(self._upstream)
        sorter.prepare()
        ended: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        with Guardian(self._mark, self._grace), ThreadPoolExecutor(min(self._jobs, len(self._tasks))) as pool:
            try:
                under_way = self._submit(sorter.get_ready(), pool, ended)
                while under_way:
                    name, outcome = ended.get()
                    under_way -= 1
                    outcomes[name] = outcome
                    if outcome.state is State.SUCCEEDED:
                        sorter.done(name)
                        under_way += self._submit(sorter.get_ready(), pool, ended)
            except BaseException:
                self.stop()
                raise
        return {name: outcomes.get(name) or self._never_ran(name, outcomes) for name in self._tasks}

    def stop(self, *, at_once: bool = False) -> None:
        """Start nothing more and have everything that runs ended; also from a signal handler."""
        self._stopped = True
        for run in list(self._running.values()):
            run.stop(at_once=at_once)

    def _submit(self, names: Sequence[str], pool: ThreadPoolExecutor, ended: Any) -> int:
        for name in names:
            pool.submit(lambda name=name: ended.put((name, self._run_one(name))))  # type: ignore[misc]
        return len(names)

    def _run_one(self, name: str) -> Outcome:
        task = self._tasks[name]
        outcome = self._ran(name, task)
        try:
            for observer in self._observers:
                observer.ended(task, outcome)
        except Exception as error:
            return outcome._replace(state=State.FAILED, reason=_said(error))
        return outcome

    def _ran(self, name: str, task: Task) -> Outcome:
        began = time.monotonic()
        try:
            run = ModuleRun(
                task.module, task.arguments(), task.settings, grace=self._grace, mark=f"{self._mark}{next(self._numbers)}/"
            )
            self._running[name] = run
            if self._stopped:
                return Outcome(State.STOPPED, reason="the run was stopped before it started")
            result = run.run(
                lambda stream, pieces: self._tell_output(task, stream, pieces),
                on_start=lambda line, workdir: self._tell_start(task, line, workdir),
            )
            return Outcome(State.SUCCEEDED, time.monotonic() - began, result.value)
        except ModuleStopped as error:
            return Outcome(State.STOPPED, time.monotonic() - began, reason=str(error))
        except Exception as error:
            return Outcome(State.FAILED, time.monotonic() - began, reason=_said(error))
        finally:
            self._running.pop(name, None)

    def _tell_start(self, task: Task, line: str, workdir: str | None) -> None:
        for observer in self._observers:
            observer.started(task, line, workdir)

    def _tell_output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        for observer in self._observers:
            observer.output(task, stream, pieces)

    def _never_ran(self, name: str, outcomes: dict[str, Outcome]) -> Outcome:
        if self._stopped:
            outcome = Outcome(State.STOPPED, reason="the run was stopped before it started")
        else:
            causes = [up for up in self._upstream[name] if outcomes[up].state is not State.SUCCEEDED]
            outcome = Outcome(State.NOT_RUN, reason=f"waits for {', '.join(map(repr, causes))}")
        outcomes[name] = outcome
        for observer in self._observers:
            observer.ended(self._tasks[name], outcome)
        return outcome


def _refuse_templates(task: Task) -> None:
    settings = task.settings
    values = (task.module, task.parameters_and_flags, task.args, settings.python, settings.env, settings.workdir)
    if template := find_template(values):
        raise InvalidTask(
            f"task {task.name!r}: {template!r} is filled in only by Airflow; give a value to run it here", task.source
        )


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, SewerError) else f"{type(error).__name__}: {error}"
