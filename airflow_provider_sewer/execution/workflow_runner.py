"""Execution of a workflow, on this machine or as jobs: each task starts once its upstream tasks have succeeded."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from airflow_provider_sewer.core.errors import FINAL_ERRORS, ModuleTerminated, SewerError, UnreadableRecord
from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.masking import Secrets
from airflow_provider_sewer.core.resources import check_limits
from airflow_provider_sewer.core.secret_detection import secret_texts
from airflow_provider_sewer.core.staleness import Decision
from airflow_provider_sewer.execution.cluster_jobs import Try
from airflow_provider_sewer.execution.code_fingerprint import Fingerprinter
from airflow_provider_sewer.execution.gpu_devices import RESOURCE, GpuDevices
from airflow_provider_sewer.execution.job_messages import WarningLine
from airflow_provider_sewer.execution.module_runner import RunEnvironment
from airflow_provider_sewer.execution.orphan_reaper import OrphanReaper
from airflow_provider_sewer.execution.plan import (
    Plan,
    make_plan,
    require_inputs,
    rerun_upstream,
    results_for,
    upstream_by_value,
)
from airflow_provider_sewer.execution.preflight import check_interpreters, reject_templates, resolve_settings
from airflow_provider_sewer.execution.process import GRACE, LONGEST_WAIT, Process
from airflow_provider_sewer.execution.scheduler import Scheduler
from airflow_provider_sewer.execution.task_runner import TaskRunner
from airflow_provider_sewer.execution.task_states import Outcome, TaskState
from airflow_provider_sewer.execution.task_usage import NO_USAGE
from airflow_provider_sewer.execution.temporary_products import TemporaryProducts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Self

    from airflow_provider_sewer.core.task import Task
    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.cluster_jobs import ClusterJobs, TaskRun
    from airflow_provider_sewer.execution.observer import Observer
    from airflow_provider_sewer.execution.output import Stream
    from airflow_provider_sewer.execution.state_file import StateFile

_UNSET = ExecutionSettings()
_STOPPED_BEFORE = Outcome(TaskState.STOPPED, reason="the run was stopped before it started")

#: Seconds, on top of the grace, after which stopped tasks are killed even if their threads are stuck.
_BACKSTOP = 1.0
#: Average seconds between two tries to lock GPUs that another run uses.
_GPU_POLL = 0.5


class WorkflowRunner:
    """One run of a workflow.

    :param workflow: the workflow, or the selected subset of one.
    :param settings: defaults for the settings of its tasks.
    :param jobs: maximum number of concurrent tasks, and of concurrent jobs; by default, the number of processors, and
        no limit on jobs.
    :param limits: available amount of each resource; unlimited if not listed.
    :param forced: names of tasks that run even if they are up to date.
    :param observers: receivers of the run's events.
    :param grace: seconds between SIGTERM and SIGKILL when tasks are stopped.
    :param slurm: runs tasks as Slurm jobs; if omitted, all run on this machine.
    :param retries: how often a failed task is run again.
    """

    def __init__(
        self,
        workflow: Workflow,
        settings: ExecutionSettings = _UNSET,
        *,
        jobs: int | None = None,
        limits: Mapping[str, int] | None = None,
        forced: Collection[str] = (),
        observers: Sequence[Observer] = (),
        grace: float = GRACE,
        slurm: ClusterJobs | None = None,
        retries: int = 0,
    ) -> None:
        self._workflow = resolve_settings(workflow, settings)
        self._tasks = self._workflow.tasks
        self._slurm = slurm
        self._retries = retries
        self._limits = dict(limits or {})
        #: Used by the thread that holds the lock.
        variables = dict(os.environ)
        self._schedule = Scheduler(self._workflow, jobs, self._limits, slurm, self._gpus(variables))
        self._scheduling = threading.Lock()
        self._forced = tuple(forced)
        self._state: StateFile | None = None
        self._origins = Fingerprinter()
        self._plan = Plan({}, {}, {})
        self._resumes = False
        self._temporary = TemporaryProducts(self._workflow)
        self.warnings: list[str] = []
        self._observers = observers
        self._grace = grace
        self._guardian = OrphanReaper(grace)
        self._runner = RunEnvironment(grace, guardian=self._guardian, variables=variables)
        self._running: dict[str, TaskRun] = {}
        self._aborted: dict[str, str] = {}
        self._workers = WorkerThreads()
        #: Receives ``None`` when all tasks have ended, or the error that prevents it.
        self._over: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._stopped = False
        self._stopped_at_once = False
        self._kill_at: float | None = None

    def _gpus(self, variables: Mapping[str, str]) -> GpuDevices:
        """Return the GPUs that this run hands out; none if no task on this machine needs one."""
        local = (task for task in self._tasks.values() if not (self._slurm and self._slurm.runs_on_slurm(task)))
        if not any(RESOURCE in task.resources for task in local):
            return GpuDevices(None)
        return GpuDevices.of_run(self._limits.get(RESOURCE), variables)

    def check(self) -> list[str]:
        """Validate the workflow before any task runs.

        :returns: warnings about modules and the like that only later tasks lack, and that an earlier one may create.
        :raises SewerError: when a value is known only to Airflow, or a task without upstream tasks cannot run.
        """
        reject_templates(self._workflow)
        check_limits(self._limits, self._tasks)
        self._schedule.gpus.check(task for name, task in self._tasks.items() if not self._schedule.is_job(name))
        require_inputs(self._workflow, self._forced)
        if self._slurm:
            self._slurm.check(self._tasks.values())
        with OrphanReaper(self._grace) as guardian:
            tasks = [
                (task, not self._workflow.upstream[name])
                for name, task in self._tasks.items()
                if (task.run_policy.run_when != "never" or name in self._forced) and not self._schedule.is_job(name)
            ]
            return check_interpreters(
                tasks, lambda command: Process(command, mark=guardian.child_tag(), grace=0.0, guardian=guardian)
            )

    @property
    def not_ahead(self) -> dict[str, str]:
        """Return why tasks with upstream tasks are not submitted ahead, although this was requested."""
        return self._schedule.not_ahead

    @property
    def reduced_concurrency(self) -> list[str]:
        """Return why fewer tasks or jobs run concurrently than requested."""
        return self._schedule.reduced_concurrency

    def run(self, state: StateFile | None = None, *, resume: bool = False) -> dict[str, Outcome]:
        """Run the tasks and return their outcomes, in the order of the workflow.

        :param state: records the tasks that succeed; results that it already has can be used.
        :param resume: skip the tasks that it already has.
        """
        self._state = state
        known = state.done if state else {}
        self._resumes = resume
        self._plan = make_plan(self._workflow, known, self._forced, resumes=resume, origins=self._origins)
        self._record_waiting()
        with self._guardian, self._workers:
            try:
                self._begin()
                self._wait_for_end()
            except BaseException:
                self.stop()
                raise
            finally:
                self._temporary.close()
            if self._stopped:  # also ends processes that finished tasks have detached
                self._guardian.end_all(0.0 if self._stopped_at_once else self._grace)
        return {name: self._schedule.outcomes[name] for name in self._tasks}

    def stop(self, *, at_once: bool = False) -> None:
        """Start no more tasks and end the running ones; callable from a signal handler."""
        self._stopped = True
        self._stopped_at_once = self._stopped_at_once or at_once
        self._kill_at = time.monotonic() + (0.0 if at_once else self._grace) + _BACKSTOP
        for run in list(self._running.values()):
            run.stop(at_once=at_once)

    @property
    def tasks_under_way(self) -> int:
        """Return the number of tasks that run, here or as jobs."""
        return len(self._running)

    @property
    def jobs_under_way(self) -> int:
        """Return the number of tasks that are Slurm jobs, or are being submitted as one."""
        return sum(map(self._schedule.is_job, list(self._running)))

    def _begin(self) -> None:
        with self._scheduling:
            self._enqueue_ready()
            self._dispatch(self._startable())

    def _run_some(self, name: str) -> None:
        """Run a task, and then, one by one, tasks that its end has made ready.

        Another thread would start them later: if it wakes up on a busy processor, it can wait there for 4 ms, while
        the processor that the task has used is idle.
        """
        mine: str | None = name
        while mine is not None:
            mine = self._next_after(mine, self._notified(mine, self._ran(mine, self._tasks[mine])))

    def _next_after(self, name: str, outcome: Outcome) -> str | None:
        """Record the end of a task, start the tasks that can start now, and return the one for this thread."""
        try:
            with self._scheduling:
                self._record_end(name, outcome)
                if outcome.state.is_success:
                    self._enqueue_ready()
                else:
                    self._skip_dependents()
                started = self._startable()
                self._dispatch(started[1:])
                return started[0] if started else None
        except BaseException as error:  # run() waits for it
            self._over.put(error)
            return None

    def _startable(self) -> list[str]:
        return self._schedule.start(done=self._plan.done, ahead=not self._stopped)

    def _dispatch(self, started: Iterable[str]) -> None:
        """Run tasks in their own threads; if none is under way, the run has ended."""
        for name in started:
            self._workers.put(partial(self._run_some, name), at_once=len(self._schedule.under_way))
        if not self._schedule.under_way:
            self._over.put(None)

    def _wait_for_end(self) -> None:
        """Wait until all tasks have ended, and kill stopped tasks that do not end in time."""
        while True:
            with suppress(queue.Empty):
                if error := self._over.get(timeout=LONGEST_WAIT):
                    raise error
                return
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                # The thread that should have ended it is stuck, probably because its output is not read.
                self._kill_at = None
                self._guardian.end_all()

    def _record_end(self, name: str, outcome: Outcome) -> None:
        self._schedule.end(name, outcome)
        if outcome.state.is_success:
            self.warnings += self._temporary.on_success(name)

    def _enqueue_ready(self) -> None:
        """Enqueue the tasks that are ready, and pass over those that are finished already."""
        coming = deque(self._schedule.newly_ready())
        while coming:
            name = coming.popleft()
            if done := self._plan.done.get(name):
                try:
                    self._temporary.claim(name)
                except SewerError as error:  # it exists, and is read without a claim
                    self.warnings.append(str(error))
                outcome = Outcome(TaskState.RESUMED, result=done.result, reason=self._plan.decisions[name].reason)
                self._record_end(name, self._notified(name, outcome))
                coming += self._schedule.newly_ready()
            else:
                self._schedule.enqueue(name)

    def _ran(self, name: str, task: Task) -> Outcome:
        began = time.monotonic()
        usage, tries = NO_USAGE, 1
        try:
            run = self._running[name] = self._new_run(name, task)
            if self._stopped:
                self._abort_job(name)
                return _STOPPED_BEFORE
            self._temporary.claim(name)
            decision, result = self._decision(name, run)
            if not decision.must_run:
                self._abort_job(name)
                outcome = Outcome(TaskState.UP_TO_DATE, result=result, reason=decision.reason)
            else:
                if not self._has_gpus(name, task):
                    return _STOPPED_BEFORE
                while True:
                    try:
                        result = self._tried(task, run)
                        break
                    except SewerError as error:
                        if tries > self._retries or self._is_final(error):
                            raise
                        tries += 1
                        self._notify(task, WarningLine(f"Try {tries} of {self._retries + 1} follows: {_line(error)}"))
                    finally:
                        usage = run.usage
                    run = self._running[name] = self._new_run(name, task, tries)
                outcome = Outcome(TaskState.SUCCEEDED, time.monotonic() - began, result, usage=usage, tries=tries)
            self._record(name, outcome, run)
        except ModuleTerminated as error:
            if name in self._aborted:
                return Outcome(TaskState.UPSTREAM_FAILED, reason=self._aborted[name])
            return Outcome(TaskState.STOPPED, time.monotonic() - began, reason=str(error), usage=usage)
        except BaseException as error:  # run() waits for an outcome
            seconds, reason = time.monotonic() - began, self._reason(error)
            return Outcome(TaskState.FAILED, seconds, reason=reason, usage=usage, tries=tries)
        else:
            return outcome
        finally:
            self._running.pop(name, None)
            self._schedule.ahead_slots[name].record_end()

    def _tried(self, task: Task, run: TaskRun) -> Any:
        """Run a task once and return its result."""
        if self._stopped:  # after the try before
            run.stop(at_once=self._stopped_at_once)
        return run.run(
            lambda stream, pieces: self._notify_output(task, stream, pieces),
            on_start=lambda line, workdir: self._notify_start(task, line, workdir),
        )

    def _is_final(self, error: SewerError) -> bool:
        """Return whether a failed task is not tried again, although there are retries left."""
        return self._stopped or isinstance(error, (*FINAL_ERRORS, ModuleTerminated, UnreadableRecord))

    def _new_run(self, name: str, task: Task, tries: int = 1) -> TaskRun:
        run = TaskRunner(
            task,
            results_for(self._workflow, task, [self._schedule.outcomes, self._state.done if self._state else {}]),
            self._runner._replace(assigned=self._schedule.gpus.variables_of(name)),
            after=upstream_by_value(self._workflow, name),
            origins=self._origins,
        )
        if self._slurm is None or not self._schedule.is_job(name):
            return run
        slot, try_ = self._schedule.ahead_slots[name], Try(tries, is_last=tries > self._retries)
        return self._slurm.runner_of(task, run, slot, lambda line: self._notify(task, line), try_)

    def _has_gpus(self, name: str, task: Task) -> bool:
        """Wait until the task has its GPUs; return whether it has, as the run may be stopped before."""
        gpus = self._schedule.gpus
        is_waiting = False
        while not gpus.acquire(name):
            if self._stopped:
                return False
            if not is_waiting:
                self._notify(task, f"Waiting for {task.resources[RESOURCE]} of {RESOURCE!r}: another run uses them")
            is_waiting = True
            time.sleep(_GPU_POLL * random.uniform(0.5, 1.5))  # noqa: S311 - so that two runs do not stay in step
        for variable, devices in gpus.variables_of(name).items():
            self._notify(task, f"{variable}={devices}")
        return True

    def _abort_job(self, name: str) -> None:
        """Cancel the job that an earlier run may have left of a task that does not run."""
        if self._slurm and self._schedule.is_job(name):
            task = self._tasks[name]
            try:
                self._slurm.cancel_latest(task, lambda line: self._notify(task, line))
            except SewerError as error:
                self.warnings.append(f"task {name!r}: a job of an earlier run may be left: {error}")

    def _decision(self, name: str, run: TaskRun) -> tuple[Decision, Any]:
        task = self._tasks[name]
        if name in self._plan.required:
            decision, result = Decision.run(self._plan.required[name]), None
        else:
            upstream, outcomes = self._workflow.upstream[name], self._schedule.outcomes
            reran = [up for up in upstream if up not in outcomes or outcomes[up].state is TaskState.SUCCEEDED]
            decision, result = run.decision(*rerun_upstream(self._workflow, name, reran))
        if decision.must_run and self._resumes and task.run_policy.run_when == "always":
            decision = self._plan.decisions[name]
        if decision.must_run and (self._resumes or name in self._plan.required or task.run_policy.run_when != "always"):
            for observer in self._observers:
                observer.on_decision(task, decision)
        return decision, result

    def _record_waiting(self) -> None:
        """Record that the tasks to run again have not succeeded, in case this run is killed before they do."""
        for name in self._state.done if self._state else ():
            decision = self._plan.decisions.get(name)
            if self._state and decision and decision.must_run and decision.is_sure:
                self._state.record(name, TaskState.WAITING.value)

    def _record(self, name: str, outcome: Outcome, run: TaskRun) -> None:
        if self._state:
            before, command = self._state.done.get(name), run.command()
            if outcome.state is TaskState.UP_TO_DATE and before is not None and before.command == command:
                return  # it is recorded already, before the tasks that followed it
            self._state.record(name, TaskState.SUCCEEDED.value, command=command, result=outcome.result)

    def _skip_dependents(self) -> None:
        """Set the outcomes of the tasks that can no longer run, upstream tasks first."""
        for name, causes in self._schedule.blocked():
            because = ", ".join(f"{cause!r} {self._schedule.outcomes[cause].state.value}" for cause in causes)
            if name not in self._schedule.under_way:
                self._abort_job(name)
                outcome = _STOPPED_BEFORE if self._stopped else Outcome(TaskState.UPSTREAM_FAILED, reason=because)
                self._record_end(name, self._notified(name, outcome))
                continue
            if not self._stopped:
                self._aborted.setdefault(name, because)
            self._schedule.ahead_slots[name].abort()

    def _notify_start(self, task: Task, line: str, workdir: str | None) -> None:
        for observer in self._observers:
            observer.on_start(task, line, workdir)

    def _notify(self, task: Task, line: str) -> None:
        line = _masked(task, f"WARNING: {line}" if isinstance(line, WarningLine) else line)
        for observer in self._observers:
            observer.on_job_event(task, line)

    def _notify_output(self, task: Task, stream: Stream, pieces: Sequence[str]) -> None:
        for observer in self._observers:
            observer.on_output(task, stream, pieces)

    def _notified(self, name: str, outcome: Outcome) -> Outcome:
        """Notify all observers of a task's end; if one of them fails, so has the task."""
        outcome = outcome._replace(reason=_masked(self._tasks[name], outcome.reason))
        for observer in self._observers:
            try:
                observer.on_end(self._tasks[name], outcome)
            except (Exception, SystemExit) as error:
                outcome = outcome._replace(state=TaskState.FAILED, reason=outcome.reason or self._reason(error))
        return outcome

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, BrokenPipeError):
            self.stop()
            return "the reader of the run's output has closed it"
        return str(error) if isinstance(error, SewerError) else f"{type(error).__name__}: {error}"


def _masked(task: Task, text: str) -> str:
    return Secrets([*task.secrets, *secret_texts(task.settings.env)]).mask(text)


def _line(error: SewerError) -> str:
    """Return the first line of an error's message."""
    return str(error).partition("\n")[0]


class WorkerThreads:
    """Pool of as many threads as there were concurrent calls.

    ``concurrent.futures`` of the standard library stores a result for each call, which costs as much as to follow a
    short task; its import costs more.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all calls have returned."""
        for _thread in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def put(self, function: Callable[[], None], at_once: int) -> None:
        """Run a function, which must not raise, in a thread of the pool.

        :param at_once: number of concurrent calls, including this one.
        """
        self._todo.put(function)
        if len(self._threads) < at_once:
            thread = threading.Thread(target=self._work, name="sewer-worker")
            try:
                thread.start()
            except RuntimeError:  # the system allows no more threads: the existing ones run the calls in turn
                if not self._threads:
                    raise
            else:
                self._threads.append(thread)

    def _work(self) -> None:
        while (function := self._todo.get()) is not None:
            function()
