"""Report on a run as a table: JSON, or lines with tabs for spreadsheets and shell tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_sewer.exporters.diagram import printable
from airflow_provider_sewer.reports.state_styles import shown_state
from airflow_provider_sewer.reports.usage_summary import gigabytes_used
from airflow_provider_sewer.reports.usage_table import USAGE_COLUMNS, usage_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_sewer.execution.run_record import RunRecord, TaskRecord
    from airflow_provider_sewer.reports.usage_summary import TaskSummary

_OF_THE_RUN = (
    "task", "state", "tries", "submitted", "started", "ended", "waited_s", "ran_s", "cpu_s", "cpus_requested",
    "mem_used_gb", "mem_requested_gb", "time_requested_min", "gpus_requested", "job_id", "node", "exit_class", "log",
    "job_directory", "reason",
)  # fmt: skip
#: Column names. Times are in ISO 8601, durations in seconds, memory in gigabytes, limits in minutes. The columns with
#: ``runs_`` are those of the task's usage over the last runs.
COLUMNS = (*_OF_THE_RUN, *(f"runs_{name}" for name in USAGE_COLUMNS[:-1]), USAGE_COLUMNS[-1])


def report_tsv(run: RunRecord, summaries: Sequence[TaskSummary]) -> str:
    """Return one line for each task, its fields separated by tabs; control characters are escaped.

    :param summaries: the usage of the tasks over the last runs.
    """
    lines = [COLUMNS, *([_cell(row[name]) for name in COLUMNS] for row in _rows(run, summaries))]
    return "".join("\t".join(line) + "\n" for line in lines)


def report_json(run: RunRecord, summaries: Sequence[TaskSummary]) -> str:
    """Return the run and its tasks as JSON.

    :param summaries: the usage of the tasks over the last runs.
    """
    return json.dumps(
        {
            "workflow": run.workflow,
            "file": run.file,
            "started": _moment(run.started),
            "ended": _moment(run.ended),
            "is_running": run.is_running,
            "tasks": _rows(run, summaries),
        },
        indent=2,
    )


def _rows(run: RunRecord, summaries: Sequence[TaskSummary]) -> list[dict[str, Any]]:
    usages = {summary.task: usage_values(summary) for summary in summaries}
    unknown = (None,) * len(USAGE_COLUMNS)
    rows = []
    for task in run.tasks.values():
        usage = usages.get(task.name.partition("[")[0], unknown) if task.usage.job_id else unknown
        rows.append(dict(zip(COLUMNS, (*_values(run, task), *usage), strict=True)))
    return rows


def _values(run: RunRecord, task: TaskRecord) -> tuple[Any, ...]:
    used, requested = task.usage.used, task.usage.requested
    waited = None if task.submitted is None or task.started is None else round(task.started - task.submitted, 3)
    memory = gigabytes_used(task.usage)
    return (
        task.name, shown_state(run, task).word, task.tries, _moment(task.submitted), _moment(task.started),
        _moment(task.ended), waited, used.get("elapsed"), used.get("cpu"), requested.get("cpus"),
        None if memory is None else round(memory, 3), requested.get("mem_gb"), requested.get("timeout_min"),
        requested.get("gpus"), task.usage.job_id or None, task.usage.node or None, task.usage.exit_class or None,
        task.log, task.usage.directory or None, task.reason or None,
    )  # fmt: skip


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else pendulum.from_timestamp(seconds, tz="local").to_iso8601_string()


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return printable(text)
