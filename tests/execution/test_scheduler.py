"""Scheduling by order, limits and resources."""

from __future__ import annotations

import os

import pytest

from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.core.workflow import Workflow
from airflow_provider_sewer.execution.scheduler import Scheduler
from airflow_provider_sewer.execution.task_states import Outcome, TaskState

SUCCEEDED = Outcome(TaskState.SUCCEEDED)
FAILED = Outcome(TaskState.FAILED)


def schedule(*tasks: Task, jobs: int = 2, **limits: int) -> Scheduler:
    return Scheduler(Workflow("plan", tasks), jobs, limits, None)


def started(plan: Scheduler) -> list[str]:
    """Enqueue all ready tasks, and return those that can start."""
    for name in plan.newly_ready():
        plan.enqueue(name)
    return plan.start(done=(), ahead=False)


def test_start_keeps_order_of_enqueue() -> None:
    """Where there is room for two, the first two start, and the third when one of them has ended."""
    plan = schedule(Task("a", "m"), Task("b", "m"), Task("c", "m"))

    assert started(plan) == ["a", "b"]
    assert started(plan) == []
    plan.end("b", SUCCEEDED)
    assert started(plan) == ["c"]
    assert list(plan.under_way) == ["a", "c"]


def test_start_skips_tasks_without_free_resources() -> None:
    """A task that wants more than there is left holds up none that wants less, and keeps its place."""
    gpu = {"gpu": 2}
    plan = schedule(Task("a", "m", resources={"gpu": 1}), Task("b", "m", resources=gpu), Task("c", "m"), jobs=3, gpu=2)

    assert started(plan) == ["a", "c"]
    plan.end("c", SUCCEEDED)
    assert started(plan) == []
    plan.end("a", SUCCEEDED)
    assert started(plan) == ["b"]


def test_ahead_slot_is_released_when_upstream_has_succeeded() -> None:
    """Direct and indirect downstream tasks of a failed task never become ready."""
    plan = schedule(
        Task("a", "m"), Task("b", "m"), Task("c", "m", depends_on=["a", "b"]), Task("d", "m", depends_on=["c"])
    )
    assert started(plan) == ["a", "b"]
    plan.end("a", FAILED)
    plan.end("b", SUCCEEDED)

    assert started(plan) == []
    unsatisfiable = {}
    for name, causes in plan.blocked():
        unsatisfiable[name] = causes
        plan.end(name, Outcome(TaskState.UPSTREAM_FAILED))
    assert unsatisfiable == {"c": ["a"], "d": ["c"]}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to processors")
def test_default_jobs_is_cpu_affinity_of_process(script) -> None:
    """In a container or a Slurm job, the processors of the whole machine do not count."""
    bound = script(
        """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from airflow_provider_sewer.core.workflow import Workflow
        from airflow_provider_sewer.execution.scheduler import Scheduler
        print(Scheduler(Workflow("none", []), None, {}, None).max_tasks)
        """
    )

    assert bound.output() == "1\n"


@pytest.mark.parametrize(
    ("allocated", "expected"), [("1", "1"), ("9999", "all"), ("", "all"), ("0", "all"), ("2(x2)", "all")]
)
def test_default_jobs_is_cpus_of_slurm_allocation(allocated: str, expected: str, script) -> None:
    """Where jobs are not bound to their CPUs, only SLURM_CPUS_ON_NODE has their number on this node."""
    here = str(len(os.sched_getaffinity(0)))
    shown = script(
        """
        import os, sys
        os.environ["SLURM_CPUS_ON_NODE"] = sys.argv[1]
        from airflow_provider_sewer.core.workflow import Workflow
        from airflow_provider_sewer.execution.scheduler import Scheduler
        print(Scheduler(Workflow("none", []), None, {}, None).max_tasks)
        """,
        allocated,
    )

    assert shown.output() == f"{here if expected == 'all' else expected}\n"
