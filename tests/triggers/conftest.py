"""Fixtures of triggers with real jobs."""

from __future__ import annotations

import logging
import sys
from textwrap import dedent

import pytest

from airflow_provider_sewer.core.execution_settings import ExecutionSettings
from airflow_provider_sewer.core.serialization import slurm_to_data
from airflow_provider_sewer.core.slurm_settings import DEFAULTS
from airflow_provider_sewer.core.task import Task
from airflow_provider_sewer.slurm.attempts import TaskInstance
from airflow_provider_sewer.slurm.job_runner import JobRunner
from airflow_provider_sewer.slurm.job_spec import JobSpec

QUICK = DEFAULTS._replace(deferrable=True, poll_interval=0.3, max_poll_interval=0.6)


@pytest.fixture(autouse=True)
def notices_at_once(monkeypatch):
    """Have a scheduler that notices at once that a worker is done."""
    monkeypatch.setattr("airflow_provider_sewer.triggers.slurm._SCHEDULER_NOTICES", 0.0)


@pytest.fixture
def busy_scheduler(monkeypatch):
    """Have a scheduler that takes long to notice it."""
    monkeypatch.setattr("airflow_provider_sewer.triggers.slurm._SCHEDULER_NOTICES", 1000.0)


@pytest.fixture
def submit(tmp_path):
    """Submit a module as a job, and return it with a trigger as from the database."""
    from airflow_provider_sewer.triggers.encrypted_fields import encrypt_secrets
    from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

    def run(source: str, cluster: str = "slurm", secrets: tuple[str, ...] = (), **settings):
        (tmp_path / "job.py").write_text(dedent(source))
        slurm = QUICK._replace(run_dir=str(tmp_path / "runs"), cluster=cluster, **settings)
        planned = JobSpec(
            TaskInstance("dag", "run", "task", -1, "0"),
            Task("task", "job").with_settings(ExecutionSettings(sys.executable, {"PYTHONPATH": str(tmp_path)})),
            slurm,
            {},
            1.0,
        )
        job = JobRunner(planned, lambda *_: None, lambda _: None).submit_and_wait()
        encrypted = encrypt_secrets(secrets, job.directory)
        trigger = SlurmJobTrigger(job.to_dict(), "job", slurm_to_data(slurm._replace(slurm={})), encrypted)
        return job, trigger

    return run


@pytest.fixture
def register(tmp_path):
    """Register so many instances of a mapped task for an array, and return the trigger of each."""
    from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger

    def run(source: str, count: int, **settings):
        (tmp_path / "job.py").write_text(dedent(source))
        given = {"run_dir": str(tmp_path / "runs"), "cluster": "slurm", "array": True, "array_wait": 600.0, **settings}
        slurm = QUICK._replace(**given)
        task = Task("task", "job").with_settings(ExecutionSettings(sys.executable, {"PYTHONPATH": str(tmp_path)}))
        for index in range(count):
            planned = JobSpec(TaskInstance("dag", "run", "task", index, "0"), task, slurm, {}, 1.0, expected=2)
            waiting = JobRunner(planned, lambda *_: None, lambda _: None).submit_or_reattach()
            yield SlurmJobTrigger(waiting.to_dict(), "job", slurm_to_data(slurm._replace(slurm={})))

    return lambda *arguments, **settings: list(run(*arguments, **settings))


@pytest.fixture
def logged(caplog):
    """Return a function that returns the lines of the module that have been logged, in order."""
    caplog.set_level(logging.INFO)
    return lambda: [r.getMessage() for r in caplog.records if r.name == "airflow.task.module.stdout"]
