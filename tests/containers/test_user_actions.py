"""Marking and clearing of tasks while their jobs run, and reading of their logs, through the API of the UI."""

from __future__ import annotations

from tests.airflow.slurm_cases import succeeded


def test_mark_failed_then_clear_runs_the_task_again(start, stack):
    """Nothing of its job is left in the queue, and then a new one succeeds, deferred or not."""
    cases = start("works", "defers")
    for case in cases:
        case.follows()
    for case in cases:
        stack.mark(*case.key, "failed")
    for case in cases:
        case.is_over()
        assert case.state() == "failed"
        case.has_seen("CANCELLED")
    assert stack.command("squeue", "--noheader") == ""
    for case in cases:
        stack.clear(case.dag_id, case.run_id, [case.task_id])
    for case in cases:
        case.runs(2)
        case.enough()
    for case in cases:
        succeeded(case, earlier=("CANCELLED",))
        case.earlier_log_is_true()


def test_clear_running_task_resubmits_its_job(start, stack):
    """The job is cancelled, and a new one runs and succeeds, deferred or not."""
    cases = start("works", "defers")
    for case in cases:
        case.follows()
    for case in cases:
        stack.clear(case.dag_id, case.run_id, [case.task_id])
    for case in cases:
        case.runs(2)
        case.has_seen("CANCELLED", "RUNNING")
        case.enough()
    for case in cases:
        succeeded(case, earlier=("CANCELLED",))
        case.earlier_log_is_true()


def test_deferred_task_log_is_updated(start):
    """The job's output can be read while it runs, and more of it the next time."""
    case = start("defers")
    case.is_deferred()
    first = case.logged()
    second = case.until(lambda: len(now := case.logged()) > len(first) and now, "more lines")
    assert case.state() == "deferred"
    case.has_seen("RUNNING")
    assert second[: len(first)] == first
    case.enough()
    succeeded(case)
