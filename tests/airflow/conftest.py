"""Shared fixtures of the tests of Slurm jobs in a complete Airflow: one Airflow and one cluster for all tests."""

from __future__ import annotations

import itertools

import pytest

from .slurm_cases import Case, Stage, write_project


@pytest.fixture(scope="session")
def stage(slurm, tmp_path_factory):
    """Return an Airflow whose tasks are jobs of the session's cluster, which has no accounting."""
    folder = tmp_path_factory.mktemp("chaos")
    write_project(folder / "modules", folder / "airflow" / "dags")
    stage = Stage(folder / "airflow", folder / "links")
    stage.lead_to(slurm)
    with stage.airflow:
        yield stage


@pytest.fixture
def airflow(stage):
    """Return the Airflow of these tests."""
    return stage.airflow


@pytest.fixture
def start(stage, tmp_path):
    """Return a function that starts runs of DAGs, one for each name."""
    numbers = itertools.count(1)

    def start(*dag_ids):
        folders = [tmp_path / f"{tmp_path.name}-{next(numbers)}" for _ in dag_ids]
        cases = [Case(stage, folder, dag_id) for folder, dag_id in zip(folders, dag_ids, strict=True)]
        return cases[0] if len(cases) == 1 else cases

    return start
