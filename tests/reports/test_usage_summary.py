"""Usage of tasks over several runs, and suggested requests."""

from __future__ import annotations

import csv
import json

import pytest

from airflow_provider_sewer.execution.run_record import RunRecord, TaskRecord
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.task_usage import TaskUsage
from airflow_provider_sewer.reports.usage_summary import COLUMNS, summarize, usage_text, usage_tsv

GIGABYTE = 1024.0**3
REQUEST = {"cpus": 4.0, "mem_gb": 16.0, "timeout_min": 120.0}


def job(name: str, memory: float, *, state: TaskState = TaskState.SUCCEEDED, job_id: str = "1") -> TaskRecord:
    usage = TaskUsage({"elapsed": 3600.0, "cpu": 7200.0, "max_rss": memory * GIGABYTE}, REQUEST, job_id)
    return TaskRecord(name, "m", [], "log", state, usage=usage)


def run_of(*tasks: TaskRecord, started: float = 0.0) -> RunRecord:
    return RunRecord("w", "/w.py", "/r", started, None, False, {task.name: task for task in tasks})


def test_summarize_quantiles_and_waste_of_several_runs() -> None:
    (summary,) = summarize([run_of(job("a", memory)) for memory in range(1, 12)])
    assert (summary.task, summary.jobs) == ("a", 11)
    assert summary.memory == (16.0, pytest.approx(6.0), pytest.approx(10.5), 11.0)
    assert summary.cpus == (4.0, 2.0, 2.0, 2.0)
    assert summary.minutes == (120.0, 60.0, 60.0, 60.0)
    assert summary.core_hours == pytest.approx(22.0)
    assert summary.gigabyte_hours == pytest.approx(sum(16 - memory for memory in range(1, 12)))


def test_summarize_instances_of_mapped_task_are_one_task() -> None:
    assert [each[:2] for each in summarize([run_of(job("a[n=1]", 1), job("a[n=2]", 2), job("b", 1))])] == [
        ("a", 2),
        ("b", 1),
    ]


def test_summarize_failed_and_local_tasks_are_left_out() -> None:
    runs = [run_of(job("a", 1, state=TaskState.FAILED), job("b", 1, job_id=""))]
    assert summarize(runs) == []


def test_summarize_since_leaves_out_earlier_runs() -> None:
    runs = [run_of(job("a", 1), started=200.0), run_of(job("a", 1), started=100.0)]
    assert [each.jobs for each in summarize(runs, since=150.0)] == [1]


def test_suggestion_is_largest_usage_with_margin() -> None:
    (summary,) = summarize([run_of(job("a", 2.1)), run_of(job("a", 0.5))])
    assert summary.suggestion == {"mem_gb": 3, "timeout_min": 90, "cpus_per_task": 2}


def test_suggestion_never_exceeds_the_request() -> None:
    (summary,) = summarize([run_of(job("a", 15.9))])
    assert "mem_gb" not in summary.suggestion


def test_text_prints_snippets_for_workflow_file_and_overrides() -> None:
    text = usage_text(summarize([run_of(job("a", 2.1))]))
    assert "a: slurm={'mem_gb': 3, 'timeout_min': 90, 'cpus_per_task': 2}" in text
    assert "        'a': {'slurm': {'mem_gb': 3, 'timeout_min': 90, 'cpus_per_task': 2}}," in text


def test_text_explains_usage_that_was_not_measured() -> None:
    usage = TaskUsage({"elapsed": 3600.0, "cpu": 7200.0}, REQUEST, "1")
    task = TaskRecord("a", "m", [], "log", TaskState.SUCCEEDED, usage=usage)

    text = usage_text(summarize([run_of(task)]))

    assert "? of 16" in text
    assert "?: not measured" in text


def test_tsv_has_all_columns() -> None:
    (row,) = csv.DictReader(usage_tsv(summarize([run_of(job("a", 2.1))])).splitlines(), delimiter="\t")
    assert tuple(row) == COLUMNS
    assert json.loads(row["suggestion"])["mem_gb"] == 3
