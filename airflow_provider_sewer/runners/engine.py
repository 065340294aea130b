"""Run a whole workflow on this machine: each task as soon as what it waits for has succeeded."""

from __future__ import annotations

import enum
import os
import queue
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from airflow_provider_sewer.core.errors import InvalidTask, ModuleStopped, SewerError
from airflow_provider_sewer.core.secrecy import secret_values
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.core.templates import find_template
from airflow_provider_sewer.runners.follower import LONGEST_WAIT
from airflow_provider_sewer.runners.guardian import Guardian
from airflow_provider_sewer.runners.module import GRACE, ModuleRun
from airflow_provider_sewer.runners.preflight import check_surroundings
from airflow_provider_sewer.runners.process import Process

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


_UNSAID = Settings()
_STOPPED_BEFORE = Outcome(State.STOPPED, reason="the run was stopped before it started")

#: Seconds, on top of the grace, after which stopped tasks are killed whatever their threads are doing.
_BACKSTOP = 1.0


class Observer(Protocol):
    """Somebody who is told what happens. Called from several threads; for one task, in order."""

    def started(self, task: Task, command_line: str, workdir: str | None, /) -> None:
        """Hear that a task's process is about to start."""

    def output(self, task: Task, stream: Stream, pieces: Sequence[str], /) -> None:
        """Hear what a task has written (pieces as in :class:`~airflow_provider_sewer.runners.output.Sink`)."""

    def ended(self, task: Task, outcome: Outcome, /) -> None:
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
        settings: Settings = _UNSAID,
        *,
        jobs: int | None = None,
        observers: Sequence[Observer] = (),
        grace: float = GRACE,
    ) -> None:
        self._tasks = {name: task.with_defaults(settings) for name, task in workflow.tasks.items()}
        self._upstream = workflow.upstream
        self._order = workflow.order
        self._jobs = jobs or _processors()
        self._observers = observers
        self._grace = grace
        self._guardian = Guardian(grace)
        self._running: dict[str, ModuleRun] = {}
        self._ended: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self._stopped = False
        self._stopped_at_once = False
        self._kill_at: float | None = None

    def check(self) -> list[str]:
        """Look for what would go wrong before anything runs.

        :returns: what is missing only for tasks that come later, and that an earlier one may yet make.
        :raises SewerError: when a value is known only to Airflow, or a first task cannot run.
        """
        for task in self._tasks.values():
            _refuse_templates(task)
        with Guardian(self._grace) as guardian:
            tasks = [(task, not self._upstream[name]) for name, task in self._tasks.items()]
            return check_surroundings(
                tasks, lambda command: Process(command, mark=guardian.submark(), grace=0.0, guardian=guardian)
            )

    def run(self) -> dict[str, Outcome]:
        """Run the tasks and return how each has ended, in the order of the workflow."""
        outcomes: dict[str, Outcome] = {}
        sorter = TopologicalSorter(self._upstream)
        sorter.prepare()
        with self._guardian, ThreadPoolExecutor(max(1, min(self._jobs, len(self._tasks)))) as pool:
            try:
                under_way = self._submit(sorter.get_ready(), pool)
                while under_way:
                    name, outcome = self._next_end()
                    under_way -= 1
                    outcomes[name] = outcome
                    if outcome.state is State.SUCCEEDED:
                        sorter.done(name)
                        under_way += self._submit(sorter.get_ready(), pool)
                    else:
                        self._call_off_dependents(outcomes)
            except BaseException:
                self.stop()
                raise
            if self._stopped:  # what a task that is long done has detached ends as well
                self._guardian.end_all(0.0 if self._stopped_at_once else self._grace)
        return {name: outcomes[name] for name in self._tasks}

    def stop(self, *, at_once: bool = False) -> None:
        """Start nothing more and have everything that runs ended; also from a signal handler."""
        self._stopped = True
        self._stopped_at_once = self._stopped_at_once or at_once
        self._kill_at = time.monotonic() + (0.0 if at_once else self._grace) + _BACKSTOP
        for run in list(self._running.values()):
            run.stop(at_once=at_once)

    def _submit(self, names: Sequence[str], pool: ThreadPoolExecutor) -> int:
        for name in names:
            pool.submit(self._run_one, name)
        return len(names)

    def _next_end(self) -> tuple[str, Outcome]:
        """Wait for a task to end, and see to it that stopped ones do."""
        while True:
            with suppress(queue.Empty):
                return self._ended.get(timeout=LONGEST_WAIT)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                # The thread that should have ended it is stuck, probably where nobody takes its output.
                self._kill_at = None
                self._guardian.end_all()

    def _run_one(self, name: str) -> None:
        outcome = self._ran(name, self._tasks[name])
        self._ended.put((name, self._told(name, outcome)))

    def _ran(self, name: str, task: Task) -> Outcome:
        began = time.monotonic()
        try:
            run = ModuleRun(
                task.module,
                task.arguments(),
                task.settings,
                grace=self._grace,
                secrets=secret_values(task.settings.env),
                guardian=self._guardian,
            )
            self._running[name] = run
            if self._stopped:
                return _STOPPED_BEFORE
            result = run.run(
                lambda stream, pieces: self._tell_output(task, stream, pieces),
                on_start=lambda line, workdir: self._tell_start(task, line, workdir),
            )
            return Outcome(State.SUCCEEDED, time.monotonic() - began, result.value)
        except ModuleStopped as error:
            return Outcome(State.STOPPED, time.monotonic() - began, reason=str(error))
        except BaseException as error:  # whatever it is, run() waits for an outcome
            return Outcome(State.FAILED, time.monotonic() - began, reason=self._reason(error))
        finally:
            self._running.pop(name, None)

    def _call_off_dependents(self, outcomes: dict[str, Outcome]) -> None:
        """Settle what will not run any more, in an order in which each finds the causes settled."""
        for name in self._order:
            causes = [up for up in self._upstream[name] if up in outcomes and outcomes[up].state is not State.SUCCEEDED]
            if causes and name not in outcomes:
                because = ", ".join(f"{cause!r} {outcomes[cause].state.value}" for cause in causes)
                outcomes[name] = self._told(
                    name, _STOPPED_BEFORE if self._stopped else Outcome(State.NOT_RUN, reason=because)
                )

    def _tell_start(self, task: Task, line: str, workdir: str | None) -> None:
        for observer in self._observers:
            observer.started(task, line, workdir)

    def _tell_output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        for observer in self._observers:
            observer.output(task, stream, pieces)

    def _told(self, name: str, outcome: Outcome) -> Outcome:
        """Tell everybody how a task has ended; one whose end cannot be recorded has failed."""
        for observer in self._observers:
            try:
                observer.ended(self._tasks[name], outcome)
            except (Exception, SystemExit) as error:
                outcome = outcome._replace(state=State.FAILED, reason=outcome.reason or self._reason(error))
        return outcome

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, BrokenPipeError):
            self.stop()
            return "nobody reads the output of the run any more"
        return str(error) if isinstance(error, SewerError) else f"{type(error).__name__}: {error}"


def _refuse_templates(task: Task) -> None:
    settings = task.settings
    values = (task.module, task.parameters_and_flags, task.args, settings.python, settings.env, settings.workdir)
    if template := find_template(values):
        raise InvalidTask(
            f"task {task.name!r}: {template!r} is filled in only by Airflow; give a value to run it here", task.source
        )


def _processors() -> int:
    """Return how many processors this process may use, which in a container or a job are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
