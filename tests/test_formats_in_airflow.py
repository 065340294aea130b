"""Records in Airflow's database of each released format are read correctly: see test_formats.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string

from airflow_provider_sewer.core import errors, formats
from airflow_provider_sewer.core.errors import UnreadableRecord
from airflow_provider_sewer.core.formats import Format
from airflow_provider_sewer.core.serialization import slurm_of_data
from airflow_provider_sewer.core.slurm_settings import SlurmSettings
from airflow_provider_sewer.operators import paths, upstream_runs
from airflow_provider_sewer.slurm.job import Job
from airflow_provider_sewer.slurm.job_result import JobResult
from airflow_provider_sewer.triggers.path import PathTrigger
from airflow_provider_sewer.triggers.slurm import SlurmJobTrigger
from tests.test_formats import ENDING, NAME, RECORDS


def in_airflow(name: str) -> dict[str, Any]:
    """Return a record of Airflow's database."""
    fields: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text())
    return fields


def read_trigger(path: str) -> Callable[[dict[str, Any]], Any]:
    """Return a function that makes a trigger of its arguments, as Airflow does, and starts it."""

    def read(fields: dict[str, Any]) -> Any:
        trigger = import_string(path)(**fields)
        kind = formats.JOB_TRIGGER if path.endswith("SlurmJobTrigger") else formats.PATH_TRIGGER
        kind.read("the arguments of the trigger", trigger.serialize()[1])
        return trigger.serialize()

    return read


class Instance:
    """A task instance, as far as it has XComs."""

    map_index = -1

    def __init__(self, value: Any) -> None:
        self.value = value

    def xcom_pull(self, **_: Any) -> Any:
        """Return the XCom of an upstream task."""
        return [self.value]


def event_again(fields: Any) -> Any:
    """Read an event and write it again."""
    job, result = JobResult.from_event(fields)
    return result.to_event(job.to_dict())


IN_AIRFLOW: dict[str, tuple[Format, Callable[[dict[str, Any]], Any]]] = {
    "job_event": (formats.JOB_EVENT, event_again),
    "path_event": (
        formats.PATH_EVENT,
        lambda fields: paths.ExternalPathSensor(task_id="t", path="/in.csv").execute_complete({}, fields),
    ),
    "run_xcom": (
        formats.RUN,
        lambda fields: upstream_runs.pull_upstream_runs(["raw"], Instance(fields), is_in_instances=False),
    ),
    "stored_job": (
        formats.STORED_JOB,
        lambda fields: str(Job.from_dict(formats.STORED_JOB.read("the store", fields)["job"])),
    ),
}  # fmt: skip
READ = {
    "job_event": in_airflow("job_event"),
    "path_event": None,
    "run_xcom": upstream_runs.UpstreamRuns([], {"raw": "7-8"}),
    "stored_job": f"Slurm job 4711 ({NAME})",
}


@pytest.mark.parametrize("name", IN_AIRFLOW)
def test_data_of_airflow_of_format_1_are_read(name: str) -> None:
    """With a key more as well."""
    assert IN_AIRFLOW[name][1](in_airflow(name) | {"later": 1}) == READ[name]


@pytest.mark.parametrize("name", IN_AIRFLOW)
def test_data_of_airflow_of_a_newer_format_raise(name: str) -> None:
    """The error names both versions and the way out."""
    with pytest.raises(UnreadableRecord, match=r"has format 99, and .* reads format 1; .*clear the task"):
        IN_AIRFLOW[name][1](in_airflow(name) | {"format": 99})


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in IN_AIRFLOW for key in IN_AIRFLOW[name][0].keys])
def test_data_of_airflow_without_a_key_raise(name: str, key: str) -> None:
    """No value is made up for it."""
    fields = in_airflow(name)
    del fields[key]

    with pytest.raises((UnreadableRecord, KeyError), match=f"'{key}'"):
        IN_AIRFLOW[name][1](fields)


def test_trigger_event_names_class_of_its_error() -> None:
    """As an operator raises it."""
    _, ending = JobResult.from_event(in_airflow("job_event"))

    error = ending.as_error()

    assert (ending, type(error), error.message) == (ENDING, errors.SlurmOutOfMemory, "more")


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("job_trigger", "airflow_provider_sewer.triggers.slurm.SlurmJobTrigger", SlurmJobTrigger),
        ("path_trigger", "airflow_provider_sewer.triggers.path.PathTrigger", PathTrigger),
    ],
)
def test_trigger_of_format_1_is_made_and_written(name: str, path: str, kind: type) -> None:
    """Airflow's database has the path of its class, and its arguments."""
    trigger = import_string(path)(**in_airflow(name), later=1)

    assert type(trigger) is kind
    assert trigger.serialize() == (path, in_airflow(name))


def test_trigger_reads_its_settings() -> None:
    """Setting by setting."""
    settings = slurm_of_data(SlurmJobTrigger(**in_airflow("job_trigger")).serialize()[1]["settings"])

    assert settings == SlurmSettings(
        {}, "/runs", "slurm", True, 5.0, 60.0, True, "cancel_job", False, None, ("InvalidQOS",), 300.0, 86400.0, True,
        False, 30.0,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), [("job_trigger", SlurmJobTrigger), ("path_trigger", PathTrigger)])
def test_trigger_of_a_newer_format_raises(name: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow lets a worker go on with the task then, which has the records of the job."""
    monkeypatch.setattr("airflow_provider_sewer.triggers.slurm._SCHEDULER_NOTICES", 0.0)
    fields = in_airflow(name) | {"format": 99}
    trigger = kind(**fields)
    trigger.trigger_id = 7

    async def first() -> Any:
        return await anext(trigger.run())

    assert trigger.serialize()[1]["format"] == 99
    with pytest.raises(UnreadableRecord, match=r"the arguments of \S+Trigger has format 99, and this version"):
        asyncio.run(first())
