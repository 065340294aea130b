"""Shared fixtures of the container tests: one Airflow and one cluster, brought up once."""

from __future__ import annotations

import itertools
import re

import pytest

from .cases import ContainerCase
from .stack import Stack, lacking


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """Return the containers started by ``make up``."""
    if lack := lacking():
        pytest.skip(f"no containers: {lack}")
    with Stack(tmp_path_factory.mktemp("containers") / "checkout") as stack:
        yield stack


@pytest.fixture
def start(stack, request):
    """Return a function that starts runs of DAGs, one for each name, and ends unfinished ones after the test."""
    numbers = itertools.count(1)
    name = re.sub(r"\W+", "-", request.node.name).strip("-")

    def start(*dag_ids):
        cases = [ContainerCase(stack, f"{name}-{next(numbers)}", dag_id) for dag_id in dag_ids]
        started.extend(cases)
        return cases[0] if len(cases) == 1 else cases

    started: list[ContainerCase] = []
    yield start
    for case in started:
        if stack.run_state(*case.key[:2]) in {"queued", "running"}:  # the test has failed
            stack.mark_run(*case.key[:2], "failed")
