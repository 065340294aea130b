"""Run a whole workflow, on this machine or as jobs: each task as soon as what it waits for has succeeded."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import ModuleStopped, SewerError
from airflow_provider_sewer.core.freshness import Verdict
from airflow_provider_sewer.core.resources import check_limits
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.runners.follower import LONGEST_WAIT
from airflow_provider_sewer.runners.guardian import Guardian
from airflow_provider_sewer.runners.module import GRACE, Runner
from airflow_provider_sewer.runners.origins import Origins
from airflow_provider_sewer.runners.outcome import Outcome, State
from airflow_provider_sewer.runners.plan import Plan, followed, make_plan, ran_anew, results_for, want_inputs
from airflow_provider_sewer.runners.preflight import check_surroundings, refuse_templates, settled
from airflow_provider_sewer.runners.process import Process
from airflow_provider_sewer.runners.schedule import Schedule
from airflow_provider_sewer.runners.slurm.log_lines import WarningLine
from airflow_provider_sewer.runners.task_run import TaskRun
from airflow_provider_sewer.runners.temporary import TemporaryProducts
from airflow_provider_sewer.runners.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.runners.outcome import Observer
    from airflow_provider_sewer.runners.output import Stream
    from airflow_provider_sewer.runners.slurm.task_run import SlurmJobs, SlurmTaskRun
    from airflow_provider_sewer.runners.state import StateFile


_UNSAID = Settings()
_STOPPED_BEFORE = Outcome(State.STOPPED, reason="the run was stopped before it started")

#: Seconds, on top of the grace, after which stopped tasks are killed whatever their threads are doing.
_BACKSTOP = 1.0


class Engine:
    """One run of a workflow.

    :param workflow: what to run.
    :param settings: where its tasks run, as far as they do not say so themselves.
    :param jobs: how many tasks at once, and how many jobs; as many as there are processors, and all jobs, if not said.
    :param limits: how much there is of each resource that tasks take; enough where not said.
    :param forced: names of tasks to run in any case.
    :param observers: who is told what happens.
    :param grace: seconds between SIGTERM and SIGKILL when tasks are stopped.
    :param slurm: how tasks become Slurm jobs; all run on this machine if not said.
    """

    def __init__(
        self,
        workflow: Workflow,
        settings: Settings = _UNSAID,
        *,
        jobs: int | None = None,
        limits: Mapping[str, int] | None = None,
        forced: Collection[str] = (),
        observers: Sequence[Observer] = (),
        grace: float = GRACE,
        slurm: SlurmJobs | None = None,
    ) -> None:
        self._workflow = settled(workflow, settings)
        self._tasks = self._workflow.tasks
        self._slurm = slurm
        self._limits = dict(limits or {})
        #: Used by the thread that holds the lock.
        self._schedule = Schedule(self._workflow, jobs, self._limits, slurm)
        self._scheduling = threading.Lock()
        self._forced = tuple(forced)
        self._state: StateFile | None = None
        self._origins = Origins()
        self._plan = Plan({}, {}, {})
        self._resumes = False
        self._temporary = TemporaryProducts(self._workflow)
        self.warnings: list[str] = []
        self._observers = observers
        self._grace = grace
        self._guardian = Guardian(grace)
        self._runner = Runner(grace, guardian=self._guardian, variables=dict(os.environ))
        self._running: dict[str, TaskRun | SlurmTaskRun] = {}
        self._called_off: dict[str, str] = {}
        self._workers = Workers()
        #: Told when all has ended, or what has gone wrong with that.
        self._over: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._stopped = False
        self._stopped_at_once = False
        self._kill_at: float | None = None

    def check(self) -> list[str]:
        """Look for what would go wrong before anything runs.

        :returns: what is missing only for tasks that come later, and that an earlier one may yet make.
        :raises SewerError: when a value is known only to Airflow, or a first task cannot run.
        """
        refuse_templates(self._workflow)
        check_limits(self._limits, self._tasks)
        want_inputs(self._workflow, self._forced)
        if self._slurm:
            self._slurm.check(self._tasks.values())
        with Guardian(self._grace) as guardian:
            tasks = [
                (task, not self._workflow.upstream[name])
                for name, task in self._tasks.items()
                if (task.freshness.run_when != "never" or name in self._forced) and not self._schedule.is_job(name)
            ]
            return check_surroundings(
                tasks, lambda command: Process(command, mark=guardian.submark(), grace=0.0, guardian=guardian)
            )

    @property
    def not_ahead(self) -> dict[str, str]:
        """Return why tasks that have others before them are not submitted ahead, though that is wanted."""
        return self._schedule.not_ahead

    @property
    def not_at_once(self) -> list[str]:
        """Return why fewer tasks or jobs are under way at once than is wanted."""
        return self._schedule.not_at_once

    def run(self, state: StateFile | None = None, *, resume: bool = False) -> dict[str, Outcome]:
        """Run the tasks and return how each has ended, in the order of the workflow.

        :param state: where it is noted what has succeeded; what is in it already can be taken from it.
        :param resume: what is in it already is not run again.
        """
        self._state = state
        known = state.done if state else {}
        self._resumes = resume
        self._plan = make_plan(self._workflow, known, self._forced, resumes=resume, origins=self._origins)
        self._note_what_waits()
        with self._guardian, self._workers:
            try:
                self._begin()
                self._wait_for_the_end()
            except BaseException:
                self.stop()
                raise
            finally:
                self._temporary.close()
            if self._stopped:  # what a task that is long done has detached ends as well
                self._guardian.end_all(0.0 if self._stopped_at_once else self._grace)
        return {name: self._schedule.outcomes[name] for name in self._tasks}

    def stop(self, *, at_once: bool = False) -> None:
        """Start nothing more and have everything that runs ended; also from a signal handler."""
        self._stopped = True
        self._stopped_at_once = self._stopped_at_once or at_once
        self._kill_at = time.monotonic() + (0.0 if at_once else self._grace) + _BACKSTOP
        for run in list(self._running.values()):
            run.stop(at_once=at_once)

    @property
    def jobs_under_way(self) -> int:
        """Return how many tasks are Slurm jobs now, or become one."""
        return sum(map(self._schedule.is_job, list(self._running)))

    def _begin(self) -> None:
        with self._scheduling:
            self._take_what_comes()
            self._put(self._started())

    def _run_some(self, name: str) -> None:
        """Run a task, and after it, one by one, what it has made way for.

        To leave these to another thread would cost the way to it: one that wakes up on a processor which is busy can
        wait there for its turn for 4 ms, while the processor that the task has left has nothing to do.
        """
        mine: str | None = name
        while mine is not None:
            mine = self._go_on(mine, self._told(mine, self._ran(mine, self._tasks[mine])))

    def _go_on(self, name: str, outcome: Outcome) -> str | None:
        """Take note of the end of a task, start what can start now, and return what is left to this thread."""
        try:
            with self._scheduling:
                self._note_end(name, outcome)
                if outcome.state.is_success:
                    self._take_what_comes()
                else:
                    self._call_off_dependents()
                started = self._started()
                self._put(started[1:])
                return started[0] if started else None
        except BaseException as error:  # whatever it is, run() waits
            self._over.put(error)
            return None

    def _started(self) -> list[str]:
        return self._schedule.start(done=self._plan.done, ahead=not self._stopped)

    def _put(self, started: Iterable[str]) -> None:
        """Leave tasks to threads of their own; where nothing is under way, all has ended."""
        for name in started:
            self._workers.put(partial(self._run_some, name), at_once=len(self._schedule.under_way))
        if not self._schedule.under_way:
            self._over.put(None)

    def _wait_for_the_end(self) -> None:
        """Wait until all has ended, and see to it that what is stopped does."""
        while True:
            with suppress(queue.Empty):
                if error := self._over.get(timeout=LONGEST_WAIT):
                    raise error
                return
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                # The thread that should have ended it is stuck, probably where nobody takes its output.
                self._kill_at = None
                self._guardian.end_all()

    def _note_end(self, name: str, outcome: Outcome) -> None:
        self._schedule.end(name, outcome)
        if outcome.state.is_success:
            self.warnings += self._temporary.note_success(name)

    def _take_what_comes(self) -> None:
        """Let those wait for room whose turn has come, and go on behind those that are done as they are."""
        coming = deque(self._schedule.coming())
        while coming:
            name = coming.popleft()
            if done := self._plan.done.get(name):
                try:
                    self._temporary.claim(name)
                except SewerError as error:  # it is there, and read without a claim
                    self.warnings.append(str(error))
                outcome = Outcome(State.DONE, result=done.result, reason=self._plan.verdicts[name].why)
                self._note_end(name, self._told(name, outcome))
                coming += self._schedule.coming()
            else:
                self._schedule.admit(name)

    def _ran(self, name: str, task: Task) -> Outcome:
        began = time.monotonic()
        try:
            run = self._running[name] = self._new_run(name, task)
            if self._stopped:
                self._call_off_job(name)
                return _STOPPED_BEFORE
            self._temporary.claim(name)
            verdict, result = self._judged(name, run)
            if not verdict.must_run:
                self._call_off_job(name)
                outcome = Outcome(State.UP_TO_DATE, result=result, reason=verdict.why)
            else:
                result = run.run(
                    lambda stream, pieces: self._tell_output(task, stream, pieces),
                    on_start=lambda line, workdir: self._tell_start(task, line, workdir),
                )
                outcome = Outcome(State.SUCCEEDED, time.monotonic() - began, result)
            self._note(name, outcome, run)
        except ModuleStopped as error:
            if name in self._called_off:
                return Outcome(State.NOT_RUN, reason=self._called_off[name])
            return Outcome(State.STOPPED, time.monotonic() - began, reason=str(error))
        except BaseException as error:  # whatever it is, run() waits for an outcome
            return Outcome(State.FAILED, time.monotonic() - began, reason=self._reason(error))
        else:
            return outcome
        finally:
            self._running.pop(name, None)
            self._schedule.turns[name].note_end()

    def _new_run(self, name: str, task: Task) -> TaskRun | SlurmTaskRun:
        run = TaskRun(
            task,
            results_for(self._workflow, task, [self._schedule.outcomes, self._state.done if self._state else {}]),
            self._runner,
            after=followed(self._workflow, name),
            origins=self._origins,
        )
        if self._slurm is None or not self._schedule.is_job(name):
            return run
        return self._slurm.run_of(task, run, self._schedule.turns[name], lambda line: self._tell(task, line))

    def _call_off_job(self, name: str) -> None:
        """See to it that nothing runs of a job that an earlier run has left of a task which does not run."""
        if self._slurm and self._schedule.is_job(name):
            task = self._tasks[name]
            try:
                self._slurm.cancel_left(task, lambda line: self._tell(task, line))
            except SewerError as error:
                self.warnings.append(f"task {name!r}: a job of an earlier run may be left: {error}")

    def _judged(self, name: str, run: TaskRun | SlurmTaskRun) -> tuple[Verdict, Any]:
        task = self._tasks[name]
        if name in self._plan.must:
            verdict, result = Verdict.run(self._plan.must[name]), None
        else:
            upstream, outcomes = self._workflow.upstream[name], self._schedule.outcomes
            anew = [up for up in upstream if up not in outcomes or outcomes[up].state is State.SUCCEEDED]
            verdict, result = run.verdict(*ran_anew(self._workflow, name, anew))
        if verdict.must_run and self._resumes and task.freshness.run_when == "always":
            verdict = self._plan.verdicts[name]
        if verdict.must_run and (self._resumes or name in self._plan.must or task.freshness.run_when != "always"):
            for observer in self._observers:
                observer.judged(task, verdict)
        return verdict, result

    def _note_what_waits(self) -> None:
        """Note that what is run again has not succeeded, should this run be ended before it has."""
        for name in self._state.done if self._state else ():
            verdict = self._plan.verdicts.get(name)
            if self._state and verdict and verdict.must_run and verdict.is_sure:
                self._state.note(name, State.WAITING.value)

    def _note(self, name: str, outcome: Outcome, run: TaskRun | SlurmTaskRun) -> None:
        if self._state:
            before, command = self._state.done.get(name), run.command()
            if outcome.state is State.UP_TO_DATE and before is not None and before.command == command:
                return  # it is in there, before what has followed it
            self._state.note(name, State.SUCCEEDED.value, command=command, result=outcome.result)

    def _call_off_dependents(self) -> None:
        """Settle what will not run any more, in an order in which each finds the causes settled."""
        for name, causes in self._schedule.hopeless():
            because = ", ".join(f"{cause!r} {self._schedule.outcomes[cause].state.value}" for cause in causes)
            if name not in self._schedule.under_way:
                self._call_off_job(name)
                outcome = _STOPPED_BEFORE if self._stopped else Outcome(State.NOT_RUN, reason=because)
                self._note_end(name, self._told(name, outcome))
                continue
            if not self._stopped:
                self._called_off.setdefault(name, because)
            self._schedule.turns[name].call_off()

    def _tell_start(self, task: Task, line: str, workdir: str | None) -> None:
        for observer in self._observers:
            observer.started(task, line, workdir)

    def _tell(self, task: Task, line: str) -> None:
        line = f"WARNING: {line}" if isinstance(line, WarningLine) else line
        for observer in self._observers:
            observer.told(task, line)

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
