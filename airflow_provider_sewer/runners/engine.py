"""Run a whole workflow, on this machine or as jobs: each task as soon as what it waits for has succeeded."""

from __future__ import annotations

import os
import queue
import time
from contextlib import suppress
from functools import partial
from graphlib import TopologicalSorter
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import ModuleStopped, SewerError
from airflow_provider_sewer.core.freshness import Verdict
from airflow_provider_sewer.core.resources import check_limits
from airflow_provider_sewer.core.secrecy import secret_values
from airflow_provider_sewer.core.settings import Settings
from airflow_provider_sewer.runners.follower import LONGEST_WAIT
from airflow_provider_sewer.runners.guardian import Guardian
from airflow_provider_sewer.runners.module import GRACE, Runner
from airflow_provider_sewer.runners.origins import Origins
from airflow_provider_sewer.runners.outcome import Outcome, State
from airflow_provider_sewer.runners.plan import Plan, followed, make_plan, ran_anew, results_for, want_inputs
from airflow_provider_sewer.runners.preflight import check_surroundings, refuse_templates, settled
from airflow_provider_sewer.runners.process import Process
from airflow_provider_sewer.runners.slurm.turns import Turn
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
        self._upstream = self._workflow.upstream
        self._slurm = slurm
        self._jobs = jobs or _processors()
        self._slurm_jobs = (jobs or len(self._tasks)) if slurm else 0
        self._limits = dict(limits or {})
        self._forced = tuple(forced)
        self._state: StateFile | None = None
        self._origins = Origins()
        self._plan = Plan({}, {}, {})
        self._resumes = False
        self._temporary = TemporaryProducts(self._workflow)
        self.warnings: list[str] = []
        self._outcomes: dict[str, Outcome] = {}
        self._observers = observers
        self._grace = grace
        self._guardian = Guardian(grace)
        self._runner = Runner(grace, guardian=self._guardian, variables=dict(os.environ))
        self._running: dict[str, TaskRun | SlurmTaskRun] = {}
        self._turns: dict[str, Turn] = {}
        self._called_off: dict[str, str] = {}
        self._ended: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
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
                (task, not self._upstream[name])
                for name, task in self._tasks.items()
                if (task.freshness.run_when != "never" or name in self._forced) and not self._is_job(name)
            ]
            return check_surroundings(
                tasks, lambda command: Process(command, mark=guardian.submark(), grace=0.0, guardian=guardian)
            )

    @property
    def not_ahead(self) -> dict[str, str]:
        """Return why tasks that have others before them are not submitted ahead, though that is wanted."""
        if not self._slurm or not self._slurm.ahead:
            return {}
        reasons = {name: self._why_not_ahead(name, ups) for name, ups in self._upstream.items() if ups}
        return {name: why for name, why in reasons.items() if why is not None}

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
        sorter = TopologicalSorter(self._upstream)
        sorter.prepare()
        with self._guardian, Workers() as workers:
            try:
                ready = dict.fromkeys(self._settle(sorter.get_ready(), sorter))
                under_way: dict[str, Task] = {}
                while ready or under_way:
                    for started in self._start(ready, under_way, workers):
                        ready.pop(started, None)
                    name, outcome = self._next_end()
                    del under_way[name]
                    self._outcomes[name] = outcome
                    if outcome.state.is_success:
                        self.warnings += self._temporary.note_success(name)
                        sorter.done(name)
                        ready |= dict.fromkeys(self._settle(sorter.get_ready(), sorter, under_way))
                    else:
                        self._call_off_dependents(self._outcomes, under_way)
            except BaseException:
                self.stop()
                raise
            if self._stopped:  # what a task that is long done has detached ends as well
                self._guardian.end_all(0.0 if self._stopped_at_once else self._grace)
        return {name: self._outcomes[name] for name in self._tasks}

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
        return sum(map(self._is_job, list(self._running)))

    def _settle(
        self, names: Iterable[str], sorter: TopologicalSorter[str], under_way: Collection[str] = ()
    ) -> list[str]:
        """Take those that are done as they are, let go on what is under way, and return the others, ready now."""
        waiting, ready = list(names), []
        while waiting:
            name = waiting.pop(0)
            if done := self._plan.done.get(name):
                outcome = Outcome(State.DONE, result=done.result, reason=self._plan.verdicts[name].why)
                self._outcomes[name] = self._told(name, outcome)
                self.warnings += self._temporary.note_success(name)
                sorter.done(name)
                waiting += sorter.get_ready()
            elif name in under_way:
                self._turns[name].come()
            else:
                ready.append(name)
        return ready

    def _start(self, ready: Collection[str], under_way: dict[str, Task], workers: Workers) -> list[str]:
        """Start what there is room and resources for, first come first served, and return their names."""
        started: list[str] = []
        under_way_as_jobs = sum(map(self._is_job, under_way))
        free = {
            False: self._jobs - len(under_way) + under_way_as_jobs,
            True: self._slurm_jobs - under_way_as_jobs,
        }
        for name in chain(ready, self._later(ready)):
            if not any(free.values()):
                break
            is_job = self._is_job(name)
            if free[is_job] and self._has_room(name, under_way) and (name in ready or self._may_go_ahead(name)):
                started.append(name)
                free[is_job] -= 1
                under_way[name] = self._tasks[name]
                self._turns[name] = self._turn(name)
                workers.put(partial(self._run_one, name), at_once=len(under_way))
        return started

    def _later(self, ready: Collection[str]) -> list[str]:
        """Return the tasks that are not ready, where they may be submitted all the same."""
        if not self._slurm or not self._slurm.ahead or self._stopped:
            return []
        return [name for name in self._workflow.order if name not in self._turns and name not in ready]

    def _may_go_ahead(self, name: str) -> bool:
        """Tell whether a task can be submitted now, before those before it have ended."""
        before = [up for up in self._upstream[name] if up not in self._outcomes]
        are_submitted = all(up in self._turns for up in before)
        is_settled = name in self._outcomes or name in self._plan.done
        return are_submitted and not is_settled and self._why_not_ahead(name, before) is None

    def _why_not_ahead(self, name: str, before: Iterable[str]) -> str | None:
        others = [self._tasks[each] for each in before]
        return self._slurm.why_not_ahead(self._tasks[name], others) if self._slurm else "all run on this machine"

    def _turn(self, name: str) -> Turn:
        ups = self._upstream[name]
        ended = [up for up in ups if up in self._outcomes]
        is_anew = any(self._outcomes[up].state is State.SUCCEEDED and self._turns[up].ran_anew for up in ended)
        return Turn([self._turns[up] for up in ups if up not in self._outcomes], is_anew=is_anew)

    def _is_job(self, name: str) -> bool:
        return self._slurm is not None and self._slurm.takes(self._tasks[name])

    def _has_room(self, name: str, under_way: Mapping[str, Task]) -> bool:
        for resource, amount in self._tasks[name].resources.items():
            taken = sum(task.resources.get(resource, 0) for task in under_way.values())
            if resource in self._limits and taken + amount > self._limits[resource]:
                return False
        return True

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
            run = self._running[name] = self._new_run(name, task)
            if self._stopped:
                self._call_off_job(name)
                return _STOPPED_BEFORE
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
            self._turns[name].note_end()

    def _new_run(self, name: str, task: Task) -> TaskRun | SlurmTaskRun:
        run = TaskRun(
            task,
            results_for(self._workflow, task, [self._outcomes, self._state.done if self._state else {}]),
            self._runner,
            secrets=secret_values(task.settings.env),
            after=followed(self._workflow, name),
            origins=self._origins,
        )
        if self._slurm is None or not self._is_job(name):
            return run
        return self._slurm.run_of(task, run, self._turns[name], lambda line: self._tell(task, line))

    def _call_off_job(self, name: str) -> None:
        """See to it that nothing runs of a job that an earlier run has left of a task which does not run."""
        if self._slurm and self._is_job(name):
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
            ended = {up: self._outcomes[up].state for up in self._upstream[name] if up in self._outcomes}
            anew = [up for up in self._upstream[name] if ended.get(up, State.SUCCEEDED) is State.SUCCEEDED]
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

    def _call_off_dependents(self, outcomes: dict[str, Outcome], under_way: Collection[str]) -> None:
        """Settle what will not run any more, in an order in which each finds the causes settled."""
        for name in self._workflow.order:
            causes = [up for up in self._upstream[name] if up in outcomes and not outcomes[up].state.is_success]
            if causes and name not in outcomes:
                because = ", ".join(f"{cause!r} {outcomes[cause].state.value}" for cause in causes)
                if name in under_way:
                    if not self._stopped:
                        self._called_off.setdefault(name, because)
                    self._turns[name].call_off()
                    continue
                self._call_off_job(name)
                outcomes[name] = self._told(
                    name, _STOPPED_BEFORE if self._stopped else Outcome(State.NOT_RUN, reason=because)
                )

    def _tell_start(self, task: Task, line: str, workdir: str | None) -> None:
        for observer in self._observers:
            observer.started(task, line, workdir)

    def _tell(self, task: Task, line: str) -> None:
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


def _processors() -> int:
    """Return how many processors this process may use, which in a container or a job are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
