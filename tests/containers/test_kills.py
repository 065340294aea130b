"""Containers are killed and started again while jobs run: nothing is lost, doubled or left behind."""

from __future__ import annotations

from tests.airflow.slurm_cases import succeeded


def test_a_job_takes_its_way_through_the_containers(start, stack):
    """Without any trouble: one job each, a result, a link, a log that grows while the task is deferred."""
    cases = start("works", "defers")
    for case in cases:
        case.runs()
    cases[0].is_followed()
    cases[1].is_deferred()
    for case in cases:
        case.enough()
    for case in cases:
        succeeded(case)
