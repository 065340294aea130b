"""Scheduler: which tasks of a workflow can start now, given their upstream tasks, the limits and the resources."""

from __future__ import annotations

from graphlib import TopologicalSorter
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from airflow_provider_sewer.execution.concurrency_limits import capacities, usable_processors
from airflow_provider_sewer.execution.gpu_devices import RESOURCE, GpuDevices
from airflow_provider_sewer.execution.job_order import AheadSlot
from airflow_provider_sewer.execution.task_states import Outcome, TaskState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.cluster_jobs import ClusterJobs

#: Number of tasks that every system has room for.
_FEW = 2


class Scheduler:
    """Tasks of one run: those that wait for others, those that are ready, those under way, and the outcomes.

    Not thread-safe.

    :param workflow: the workflow of the run.
    :param jobs: maximum number of concurrent tasks, and of concurrent jobs; by default, the number of processors, and
        no limit on jobs.
    :param limits: available amount of each resource; unlimited if not listed.
    :param slurm: decides which tasks become Slurm jobs, and which of these can be submitted ahead; none if omitted.
    :param gpus: the GPUs of tasks on this machine; by default, none are handed out.
    """

    def __init__(
        self,
        workflow: Workflow,
        jobs: int | None,
        limits: Mapping[str, int],
        slurm: ClusterJobs | None,
        gpus: GpuDevices | None = None,
    ) -> None:
        self._workflow = workflow
        self._tasks = workflow.tasks
        self._upstream = workflow.upstream
        self._limits = limits
        self._slurm = slurm
        self.gpus = gpus or GpuDevices(None)
        self.reduced_concurrency = list(self.gpus.notes)
        count = sum(map(self.is_job, self._tasks))
        self.max_tasks = self._with_room(jobs or usable_processors(), len(self._tasks) - count, "tasks")
        self._jobs_at_once = self._with_room(jobs or count, count, "jobs") if slurm else 0
        self._sorter: TopologicalSorter[str] = TopologicalSorter(self._upstream)
        self._sorter.prepare()
        self._ready: dict[str, None] = {}
        self.under_way: dict[str, None] = {}
        self.ahead_slots: dict[str, AheadSlot] = {}
        self.outcomes: dict[str, Outcome] = {}

    def _with_room(self, requested: int, count: int, kind: Literal["tasks", "jobs"]) -> int:
        """Return how many can run concurrently, and record the reason if fewer than requested.

        :param count: the total number of tasks or jobs.
        """
        if min(requested, count) <= _FEW:
            return requested
        least = min(capacities(), key=attrgetter(kind))
        room = getattr(least, kind)
        if min(requested, count) <= room:
            return requested
        self.reduced_concurrency.append(f"{room:.0f} {kind} at once instead of {min(requested, count)}: {least.limit}")
        return int(room)

    def is_job(self, name: str) -> bool:
        """Return whether a task becomes a Slurm job."""
        return self._slurm is not None and self._slurm.runs_on_slurm(self._tasks[name])

    @property
    def not_ahead(self) -> dict[str, str]:
        """Return why tasks with upstream tasks are not submitted ahead, although this was requested."""
        if not self._slurm or not self._slurm.ahead:
            return {}
        reasons = {name: self._not_ahead_reason(name, ups) for name, ups in self._upstream.items() if ups}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def newly_ready(self) -> tuple[str, ...]:
        """Return the tasks whose upstream tasks have all succeeded since the last call."""
        return self._sorter.get_ready()

    def enqueue(self, name: str) -> None:
        """Queue a ready task, or release it if it was submitted ahead."""
        if name in self.under_way:
            self.ahead_slots[name].release()
        else:
            self._ready[name] = None

    def start(self, *, done: Collection[str], ahead: bool) -> list[str]:
        """Start the queued tasks that the limits and the resources allow, in order, and return their names.

        :param done: tasks that are finished already.
        :param ahead: whether tasks that are not ready can be submitted, if this was requested.
        """
        started: list[str] = []
        jobs_under_way = sum(map(self.is_job, self.under_way))
        free = {
            False: self.max_tasks - len(self.under_way) + jobs_under_way,
            True: self._jobs_at_once - jobs_under_way,
        }
        for name in chain(self._ready, self._ahead_candidates(done) if ahead else ()):
            if not any(free.values()):
                break
            is_job = self.is_job(name)
            if free[is_job] and self._has_resources(name):
                started.append(name)
                free[is_job] -= 1
                self.under_way[name] = None
                self.gpus.reserve(name, self._gpus_of(name))
                self.ahead_slots[name] = self._new_slot(name)
        for name in started:
            self._ready.pop(name, None)
        return started

    def end(self, name: str, outcome: Outcome) -> None:
        """Record the outcome of a task."""
        self.under_way.pop(name, None)
        self.gpus.release(name)
        self.outcomes[name] = outcome
        if outcome.state.is_success:
            self._sorter.done(name)

    def blocked(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the tasks that can no longer run, with their upstream tasks that have not succeeded.

        An outcome that is recorded for one of them is taken into account for the next.
        """
        outcomes = self.outcomes
        for name in self._workflow.order:
            causes = [up for up in self._upstream[name] if up in outcomes and not outcomes[up].state.is_success]
            if causes and name not in outcomes:
                yield name, causes

    def _ahead_candidates(self, done: Collection[str]) -> Iterator[str]:
        """Yield the tasks that are not ready but can be submitted ahead."""
        if self._slurm and self._slurm.ahead:
            others = (name for name in self._workflow.order if name not in self.ahead_slots and name not in self._ready)
            yield from (name for name in others if name not in done and self._may_go_ahead(name))

    def _may_go_ahead(self, name: str) -> bool:
        before = [up for up in self._upstream[name] if up not in self.outcomes]
        are_submitted = all(up in self.ahead_slots for up in before)
        return are_submitted and name not in self.outcomes and self._not_ahead_reason(name, before) is None

    def _not_ahead_reason(self, name: str, before: Iterable[str]) -> str | None:
        others = [self._tasks[each] for each in before]
        return self._slurm.not_ahead_reason(self._tasks[name], others) if self._slurm else "all run on this machine"

    def _new_slot(self, name: str) -> AheadSlot:
        ups = self._upstream[name]
        ended = [up for up in ups if up in self.outcomes]
        has_rerun = any(self.outcomes[up].state is TaskState.SUCCEEDED and self.ahead_slots[up].rerun for up in ended)
        return AheadSlot([self.ahead_slots[up] for up in ups if up not in self.outcomes], has_rerun_upstream=has_rerun)

    def _has_resources(self, name: str) -> bool:
        for resource, amount in self._tasks[name].resources.items():
            taken = sum(self._tasks[other].resources.get(resource, 0) for other in self.under_way)
            if resource in self._limits and taken + amount > self._limits[resource]:
                return False
        return self.gpus.has(self._gpus_of(name))

    def _gpus_of(self, name: str) -> int:
        """Return the number of GPUs of this machine that a task needs."""
        return 0 if self.is_job(name) else self._tasks[name].resources.get(RESOURCE, 0)
