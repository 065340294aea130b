"""Report on a run as a table: JSON, or lines with tabs for spreadsheets and shell tools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pendulum

from airflow_provider_sewer.exporters.diagram import printable
from airflow_provider_sewer.reports.advice import GIGABYTE, advice_for
from airflow_provider_sewer.reports.state_styles import shown_state

if TYPE_CHECKING:
    from airflow_provider_sewer.execution.run_record import RunRecord, TaskRecord

#: Column names. Times are in ISO 8601, durations in seconds, memory in gigabytes, limits in minutes.
COLUMNS = (
    "task", "state", "submitted", "started", "ended", "waited_s", "ran_s", "cpu_s", "cpus_requested", "mem_used_gb",
    "mem_requested_gb", "time_requested_min", "job_id", "advice", "log", "job_directory", "reason",
)  # fmt: skip


def report_tsv(run: RunRecord) -> str:
    """Return one line for each task, its fields separated by tabs; control characters are escaped."""
    lines = [COLUMNS, *([_cell(row[name]) for name in COLUMNS] for row in _rows(run))]
    return "".join("\t".join(line) + "\n" for line in lines)


def report_json(run: RunRecord) -> str:
    """Return the run and its tasks as JSON."""
    return json.dumps(
        {
            "workflow": run.workflow,
            "file": run.file,
            "started": _moment(run.started),
            "ended": _moment(run.ended),
            "is_running": run.is_running,
            "tasks": list(_rows(run)),
        },
        indent=2,
    )


def _rows(run: RunRecord) -> list[dict[str, Any]]:
    return [_row(run, task) for task in run.tasks.values()]


def _row(run: RunRecord, task: TaskRecord) -> dict[str, Any]:
    used, requested = task.usage.used, task.usage.requested
    waited = None if task.submitted is None or task.started is None else round(task.started - task.submitted, 3)
    memory = used.get("max_rss")
    values = (
        task.name, shown_state(run, task).word, _moment(task.submitted), _moment(task.started), _moment(task.ended),
        waited, used.get("elapsed"), used.get("cpu"), requested.get("cpus"),
        None if memory is None else round(memory / GIGABYTE, 3), requested.get("mem_gb"), requested.get("timeout_min"),
        task.usage.job_id or None, "; ".join(advice_for(task.usage)) or None, task.log, task.usage.directory or None,
        task.reason or None,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else pendulum.from_timestamp(seconds, tz="local").to_iso8601_string()


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return printable(text)
