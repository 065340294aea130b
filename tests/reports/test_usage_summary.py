"""Usage of tasks over several runs, and suggested requests, compared with figures computed by hand."""

from __future__ import annotations

import ast
import csv
import json
from typing import Any

import pytest
import yaml

from airflow_provider_sewer.core.slurm_parameters import checked_slurm
from airflow_provider_sewer.execution.run_record import RunRecord, TaskRecord
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.task_usage import TaskUsage
from airflow_provider_sewer.reports.job_usages import FinishedJob, jobs_of_runs, latest_jobs, latest_runs
from airflow_provider_sewer.reports.usage_summary import TaskSummary, summarize
from airflow_provider_sewer.reports.usage_table import COLUMNS, usage_text, usage_tsv
from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.job_records import JobUsage

GIGABYTE = 1024.0**3
REQUEST = {"cpus": 4.0, "mem_gb": 16.0, "timeout_min": 120.0}


def usage(memory: float, end: str = "success", request: dict[str, float] | None = None, **used: float) -> TaskUsage:
    """Return the usage of a job of an hour with two busy processors."""
    figures = {"elapsed": 3600.0, "cpu": 7200.0, "max_rss": memory * GIGABYTE, **used}
    return TaskUsage(figures, REQUEST if request is None else request, "1", exit_class=end)


def summary_of(*usages: TaskUsage) -> TaskSummary:
    (summary,) = summarize([FinishedJob("a", ("w", "r"), 0.0, usage) for usage in usages])
    return summary


def run_of(name: str, *tasks: str, job_id: str = "1", started: float = 0.0) -> RunRecord:
    records: dict[str, TaskRecord] = {
        task: TaskRecord(task, "m", [], "log", TaskState.SUCCEEDED, usage=usage(1)._replace(job_id=job_id))
        for task in tasks
    }
    return RunRecord("w", "/w.py", name, started, None, False, records)


def test_summary_quantiles_and_waste_of_several_jobs() -> None:
    summary = summary_of(*(usage(memory) for memory in range(1, 12)))
    assert summary.jobs == 11
    assert summary.memory == (16.0, pytest.approx(6.0), pytest.approx(10.5), 11.0)
    assert summary.cpus == (4.0, 2.0, 2.0, 2.0)
    assert summary.minutes == (120.0, 60.0, 60.0, 60.0)
    assert summary.core_hours == pytest.approx(22.0)
    assert summary.gigabyte_hours == pytest.approx(sum(16 - memory for memory in range(1, 12)))


def test_summary_of_several_nodes_counts_all_of_them_as_waste() -> None:
    """Two nodes with 4 of 8 processors busy in all, and 6 of 16 GB used on the fuller one, for an hour."""
    summary = summary_of(usage(6, request={**REQUEST, "nodes": 2.0}, cpu=4 * 3600.0, cpus=8.0))
    assert summary.cpus[:2] == (4.0, 2.0)
    assert summary.core_hours == pytest.approx(4.0)
    assert summary.gigabyte_hours == pytest.approx(20.0)


def test_summary_waste_counts_the_processors_that_slurm_gave() -> None:
    """An exclusive node of 64 processors for a request of one."""
    assert summary_of(usage(1, request={"cpus": 1.0}, cpus=64.0, cpu=3600.0)).core_hours == pytest.approx(63.0)


def test_summary_quantiles_leave_out_failed_jobs() -> None:
    summary = summary_of(usage(1, "job_failed", elapsed=1.0), usage(2), usage(2), usage(9, "cancelled"))
    assert summary.memory == (16.0, 2.0, 2.0, 9.0)
    assert summary.jobs == 4


def test_jobs_of_runs_instances_of_mapped_task_are_one_task() -> None:
    jobs = jobs_of_runs([run_of("r", "a[n=1]", "a[n=2]", "b")])
    assert [each[:2] for each in summarize(jobs)] == [("a", 2), ("b", 1)]


def test_jobs_of_runs_leaves_out_local_tasks() -> None:
    assert jobs_of_runs([run_of("r", "a", job_id="")]) == []


def test_jobs_of_runs_include_earlier_attempts_once(tmp_path) -> None:
    """Two runs of a series, of which the second has resumed the first, and needed two attempts."""
    for number, end in (1, "timeout"), (2, "out_of_memory"), (3, "success"):
        directory = JobDirectory(str(tmp_path / str(number)))
        directory.create()
        directory.write_usage(JobUsage(job_id=str(number), exit_class=end, requested={"mem_gb": 8.0 * number}))
    runs = [run_of("later", "a"), run_of("first", "a")]
    for run, number in zip(runs, (3, 1), strict=True):
        own = run.tasks["a"]
        run.tasks["a"] = own._replace(usage=own.usage._replace(directory=str(tmp_path / str(number))))
    jobs = jobs_of_runs(runs)
    assert [job.usage.exit_class for job in jobs] == ["success", "out_of_memory", "timeout"]


def test_latest_runs_are_ten_or_those_since_a_time() -> None:
    runs = [run_of(str(number), "a", started=100.0 - number) for number in range(20)]
    assert [run.path for run in latest_runs(runs, None)] == [str(number) for number in range(10)]
    assert [run.path for run in latest_runs(runs, 85.0)] == [str(number) for number in range(16)]


def test_latest_jobs_are_those_of_ten_runs_of_each_dag() -> None:
    jobs = [FinishedJob("a", (dag, str(number // 2)), 100.0 - number, usage(1)) for number in range(40) for dag in "xy"]
    assert {job.run for job in latest_jobs(jobs, None)} == {(dag, str(number)) for number in range(10) for dag in "xy"}
    assert len(latest_jobs(jobs, None)) == 40
    assert len(latest_jobs(jobs, 100.0)) == 2


def test_suggestion_is_largest_usage_with_margin() -> None:
    assert summary_of(usage(2.1), usage(0.5)).suggestion == {"mem_gb": 3, "timeout_min": 90, "cpus_per_task": 2}


@pytest.mark.parametrize("memory", [0.01, 0.4, 0.5, 3.99, 4.0, 12.7, 15.9, 17.0])
@pytest.mark.parametrize("busy", [0.1, 1.0, 1.01, 3.5, 4.2])
def test_suggestion_is_valid_and_never_below_the_usage(memory, busy) -> None:
    suggestion = summary_of(usage(memory, cpu=busy * 3600)).suggestion
    assert checked_slurm(suggestion) == suggestion
    assert suggestion.get("mem_gb", 16) >= min(memory, 16)
    assert suggestion.get("cpus_per_task", 4) >= min(busy, 4)
    assert suggestion["timeout_min"] >= 60


def test_suggestion_after_success_never_exceeds_the_request() -> None:
    assert "mem_gb" not in summary_of(usage(15.9, cpu=4 * 3600.0)).suggestion


@pytest.mark.parametrize(
    ("usages", "suggestion"),
    [
        ([usage(15.9, "out_of_memory")], 24),
        ([usage(0.1, "out_of_memory")], 24),  # killed before it was measured
        ([usage(20, request={"mem_gb": 64.0}), usage(15.9, "out_of_memory")], 25),
        ([usage(2, request={"mem_gb": 64.0}), usage(15.9, "out_of_memory")], 24),
        ([usage(20, request={"mem_gb": 24.0}), usage(15.9, "out_of_memory")], None),
    ],
)
def test_suggestion_after_out_of_memory_is_more_than_its_request(usages, suggestion) -> None:
    all_busy = [each._replace(used={**each.used, "cpu": 4 * 3600.0}) for each in usages]
    assert summary_of(*all_busy).suggestion.get("mem_gb") == suggestion


def test_suggestion_after_timeout_is_more_than_its_request() -> None:
    assert summary_of(usage(15.9, "timeout", elapsed=7200.0)).suggestion["timeout_min"] == 180


@pytest.mark.parametrize(
    ("request_", "busy", "suggestion"),
    [
        ({"cpus": 8.0}, 3.5, {"cpus_per_task": 4}),
        ({"cpus": 8.0, "tasks": 4.0}, 3.5, {"cpus_per_task": 1}),
        ({"cpus": 16.0, "tasks": 2.0}, 3.5, {"cpus_per_task": 2}),
        ({"cpus": 4.0, "tasks": 4.0}, 1.0, {}),
        ({"cpus": 12.0, "gpus": 2.0, "cpus_per_gpu": 6.0}, 3.5, {"cpus_per_gpu": 2}),
        ({"cpus": 8.0, "nodes": 2.0}, 3.5, {"cpus_per_task": 2}),
    ],
)
def test_suggested_cpus_are_those_of_one_task_or_gpu(request_, busy, suggestion) -> None:
    """`cpu` is the time of all nodes."""
    assert summary_of(usage(1, request=request_, cpu=busy * 3600)).suggestion == suggestion


def test_fewer_processors_keep_the_memory_that_may_be_requested_for_each() -> None:
    """A job with 4 GB for each of 4 processors that uses 15 GB would run out of memory with 2 processors."""
    assert summary_of(usage(15)).suggestion == {"mem_gb": 16, "timeout_min": 90, "cpus_per_task": 2}


def test_text_prints_snippets_for_workflow_file_and_overrides() -> None:
    text = usage_text([summary_of(usage(2.1))], "flow.py")
    assert "a: slurm={'mem_gb': 3, 'timeout_min': 90, 'cpus_per_task': 2}" in text
    overrides = ast.literal_eval(text.partition("overrides=")[2].strip())
    assert overrides == {"a": {"slurm": {"mem_gb": 3, "timeout_min": 90, "cpus_per_task": 2}}}


def test_text_of_airflow_tasks_overrides_the_task_of_the_workflow_file() -> None:
    text = usage_text([summary_of(usage(2.1))._replace(task="pipeline.train")], "")
    assert "for the operator:\n    pipeline.train: slurm={'mem_gb': 3" in text
    assert list(ast.literal_eval(text.partition("overrides=")[2].strip())) == ["train"]


def test_text_of_tasks_with_one_name_in_two_groups_has_overrides_for_each() -> None:
    """One mapping would keep only the last of them."""
    text = usage_text([summary_of(usage(2.1))._replace(task=task) for task in ("a.train", "b.c.train", "b.c.x")], "")
    groups = [part.strip().partition("}\n    overrides")[0] for part in text.split("overrides=")[1:]]
    assert [list(ast.literal_eval(group)) for group in groups] == [["train"], ["train", "x"]]
    assert [group.splitlines()[0] for group in groups] == ["{  # a", "{  # b.c"]


def test_text_prints_yaml_for_stages() -> None:
    text = usage_text([summary_of(usage(2.1))._replace(task="a: b")], "stages.yaml")
    (line,) = (line for line in text.splitlines() if "{slurm:" in line)
    assert yaml.safe_load(line) == {"a: b": {"slurm": {"mem_gb": 3, "timeout_min": 90, "cpus_per_task": 2}}}


def test_text_explains_unmeasured_usage_failures_gpus_and_few_jobs() -> None:
    failed = usage(15.9, "out_of_memory", request={**REQUEST, "gpus": 2.0})
    del failed.used["max_rss"]
    text = usage_text([summary_of(failed)], "flow.py")
    for part in (
        "? of 16", "?: not measured", "a: 1 of 1 jobs ran out of memory", "a: 2 GPUs requested; their usage is not",
        "a: the suggestion rests on fewer than 5 jobs",
    ):  # fmt: skip
        assert part in text


def test_duration_below_the_resolution_leaves_the_processors_unknown() -> None:
    assert summary_of(usage(2.1, elapsed=1e-320)).cpus.largest is None


def test_text_of_many_jobs_has_no_warning() -> None:
    assert "fewer than" not in usage_text([summary_of(*[usage(2.1)] * 5)], "flow.py")


def test_tsv_has_all_columns() -> None:
    rows: list[dict[str, Any]] = [*csv.DictReader(usage_tsv([summary_of(usage(2.1))]).splitlines(), delimiter="\t")]
    assert tuple(rows[0]) == COLUMNS
    assert json.loads(rows[0]["suggestion"])["mem_gb"] == 3
    assert (rows[0]["wasted_core_hours"], rows[0]["wasted_gb_hours"]) == ("2.000", "13.900")
