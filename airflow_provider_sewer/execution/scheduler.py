"""What of a workflow can start now: the tasks whose turn has come, as far as there are room and resources for them."""

from __future__ import annotations

import os
from graphlib import TopologicalSorter
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from airflow_provider_sewer.execution.events import Outcome, TaskState
from airflow_provider_sewer.execution.job_order import AheadSlot
from airflow_provider_sewer.execution.process_limits import rooms

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from airflow_provider_sewer.core.workflow import Workflow
    from airflow_provider_sewer.execution.cluster_jobs import ClusterJobs

#: Any system has room for so many tasks.
_FEW = 2


class Scheduler:
    """The order of one run: what waits for its turn, what for room, what is under way, and how the rest has ended.

    It is for one thread at a time.

    :param workflow: what is run.
    :param jobs: how many tasks at once, and how many jobs; as many as there are processors, and all jobs, if not said.
    :param limits: how much there is of each resource that tasks take; enough where not said.
    :param slurm: which tasks become Slurm jobs, and which of these can be submitted ahead; none do if not said.
    """

    def __init__(
        self, workflow: Workflow, jobs: int | None, limits: Mapping[str, int], slurm: ClusterJobs | None
    ) -> None:
        self._workflow = workflow
        self._tasks = workflow.tasks
        self._upstream = workflow.upstream
        self._limits = limits
        self._slurm = slurm
        self.not_at_once: list[str] = []
        count = sum(map(self.is_job, self._tasks))
        self.at_once = self._with_room(jobs or _processors(), len(self._tasks) - count, "tasks")
        self._jobs_at_once = self._with_room(jobs or count, count, "jobs") if slurm else 0
        self._sorter: TopologicalSorter[str] = TopologicalSorter(self._upstream)
        self._sorter.prepare()
        self._ready: dict[str, None] = {}
        self.under_way: dict[str, None] = {}
        self.ahead_slots: dict[str, AheadSlot] = {}
        self.outcomes: dict[str, Outcome] = {}

    def _with_room(self, wanted: int, count: int, kind: Literal["tasks", "jobs"]) -> int:
        """Return how many can be under way of those that are wanted; note why where that is fewer.

        :param count: how many there are in all.
        """
        if min(wanted, count) <= _FEW:
            return wanted
        least = min(rooms(), key=attrgetter(kind))
        room = getattr(least, kind)
        if min(wanted, count) <= room:
            return wanted
        self.not_at_once.append(f"{room:.0f} {kind} at once instead of {min(wanted, count)}: {least.limit}")
        return int(room)

    def is_job(self, name: str) -> bool:
        """Tell whether a task becomes a Slurm job."""
        return self._slurm is not None and self._slurm.runs_on_slurm(self._tasks[name])

    @property
    def not_ahead(self) -> dict[str, str]:
        """Return why tasks that have others before them are not submitted ahead, though that is wanted."""
        if not self._slurm or not self._slurm.ahead:
            return {}
        reasons = {name: self._why_not_ahead(name, ups) for name, ups in self._upstream.items() if ups}
        return {name: why for name, why in reasons.items() if why is not None}

    def newly_ready(self) -> tuple[str, ...]:
        """Return the tasks whose turn has come since this was asked last: all before them have succeeded."""
        return self._sorter.get_ready()

    def enqueue(self, name: str) -> None:
        """Let a task whose turn has come wait for room, or go on with what it was submitted for ahead."""
        if name in self.under_way:
            self.ahead_slots[name].release()
        else:
            self._ready[name] = None

    def start(self, *, done: Collection[str], ahead: bool) -> list[str]:
        """Take what there is room and resources for under way, first come first served, and return their names.

        :param done: tasks that are done as they are.
        :param ahead: whether tasks whose turn has not come can be submitted, if that is wanted.
        """
        started: list[str] = []
        jobs_under_way = sum(map(self.is_job, self.under_way))
        free = {
            False: self.at_once - len(self.under_way) + jobs_under_way,
            True: self._jobs_at_once - jobs_under_way,
        }
        for name in chain(self._ready, self._later(done) if ahead else ()):
            if not any(free.values()):
                break
            is_job = self.is_job(name)
            if free[is_job] and self._has_resources(name):
                started.append(name)
                free[is_job] -= 1
                self.under_way[name] = None
                self.ahead_slots[name] = self._turn(name)
        for name in started:
            self._ready.pop(name, None)
        return started

    def end(self, name: str, outcome: Outcome) -> None:
        """Take note of how a task has ended."""
        self.under_way.pop(name, None)
        self.outcomes[name] = outcome
        if outcome.state.is_success:
            self._sorter.done(name)

    def blocked(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the tasks that cannot run any more, with those before them that have not succeeded.

        What has been done about one before the next is asked for counts for that one.
        """
        outcomes = self.outcomes
        for name in self._workflow.order:
            causes = [up for up in self._upstream[name] if up in outcomes and not outcomes[up].state.is_success]
            if causes and name not in outcomes:
                yield name, causes

    def _later(self, done: Collection[str]) -> Iterator[str]:
        """Yield the tasks whose turn has not come, and that can be submitted all the same."""
        if self._slurm and self._slurm.ahead:
            others = (name for name in self._workflow.order if name not in self.ahead_slots and name not in self._ready)
            yield from (name for name in others if name not in done and self._may_go_ahead(name))

    def _may_go_ahead(self, name: str) -> bool:
        before = [up for up in self._upstream[name] if up not in self.outcomes]
        are_submitted = all(up in self.ahead_slots for up in before)
        return are_submitted and name not in self.outcomes and self._why_not_ahead(name, before) is None

    def _why_not_ahead(self, name: str, before: Iterable[str]) -> str | None:
        others = [self._tasks[each] for each in before]
        return self._slurm.not_ahead_reason(self._tasks[name], others) if self._slurm else "all run on this machine"

    def _turn(self, name: str) -> AheadSlot:
        ups = self._upstream[name]
        ended = [up for up in ups if up in self.outcomes]
        is_anew = any(self.outcomes[up].state is TaskState.SUCCEEDED and self.ahead_slots[up].rerun for up in ended)
        return AheadSlot([self.ahead_slots[up] for up in ups if up not in self.outcomes], is_anew=is_anew)

    def _has_resources(self, name: str) -> bool:
        for resource, amount in self._tasks[name].resources.items():
            taken = sum(self._tasks[other].resources.get(resource, 0) for other in self.under_way)
            if resource in self._limits and taken + amount > self._limits[resource]:
                return False
        return True


def _processors() -> int:
    """Return how many processors this process may use, which in a container or a job are not all there are.

    Not every cluster binds a job to its processors. Then only ``SLURM_CPUS_ON_NODE`` tells how many it has on this node
    (sbatch(1), OUTPUT ENVIRONMENT VARIABLES).
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allocated = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return min(here, int(allocated)) if allocated.isdecimal() and int(allocated) else here
