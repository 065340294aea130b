"""Usage of the tasks of a workflow over several runs, and requests that would have been enough."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.exporters.diagram import printable
from airflow_provider_sewer.reports.advice import GIGABYTE, busy_cpus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_sewer.execution.run_record import RunRecord
    from airflow_provider_sewer.execution.task_usage import TaskUsage

_HOUR = 3600.0
#: A suggestion is the largest usage times this, rounded up to a multiple.
_MARGIN = {"mem_gb": (1.25, 0.5), "timeout_min": (1.5, 5.0), "cpus_per_task": (1.0, 1.0)}
COLUMNS = (
    "task", "jobs", "mem_gb_requested", "mem_gb_p50", "mem_gb_p95", "cpus_requested", "cpus_p50", "cpus_p95",
    "timeout_min_requested", "minutes_p50", "minutes_p95", "wasted_core_hours", "wasted_gb_hours", "suggestion",
)  # fmt: skip


class Spread(NamedTuple):
    """Requested amount of the last job, and quantiles of the used amount; ``None`` if they are not known."""

    requested: float | None
    p50: float | None
    p95: float | None
    largest: float | None


class TaskSummary(NamedTuple):
    """Usage of a task, or of all instances of a mapped task, over its jobs that succeeded.

    :param task: its name; of a mapped task, that without values.
    :param jobs: number of jobs.
    :param memory: gigabytes.
    :param cpus: busy processors on average.
    :param minutes: duration.
    :param core_hours: requested and unused.
    :param gigabyte_hours: requested and unused.
    """

    task: str
    jobs: int
    memory: Spread
    cpus: Spread
    minutes: Spread
    core_hours: float
    gigabyte_hours: float

    @property
    def suggestion(self) -> dict[str, float | int]:
        """Return Slurm parameters that would have been enough, for those requests that are larger."""
        spreads = {"mem_gb": self.memory, "timeout_min": self.minutes, "cpus_per_task": self.cpus}
        suggested = {}
        for name, spread in spreads.items():
            factor, step = _MARGIN[name]
            if spread.requested and spread.largest:
                enough = max(step, math.ceil(spread.largest * factor / step) * step)
                if enough < spread.requested:
                    suggested[name] = int(enough) if enough == int(enough) else enough
        return suggested


def summarize(runs: Iterable[RunRecord], *, since: float = 0.0) -> list[TaskSummary]:
    """Return the usage of each task that has run as a job, in the order of the workflow.

    :param runs: the recorded runs of a workflow file, the newest first.
    :param since: runs that started earlier are left out; in seconds since 1970.
    """
    jobs: dict[str, list[TaskUsage]] = defaultdict(list)
    for run in runs:
        if run.started < since:
            continue
        for task in run.tasks.values():
            if task.state is TaskState.SUCCEEDED and task.usage.job_id:
                jobs[task.name.partition("[")[0]].append(task.usage)
    return [_summary(name, usages) for name, usages in jobs.items()]


def _summary(task: str, usages: Sequence[TaskUsage]) -> TaskSummary:
    cores = gigabytes = 0.0
    for used, requested, *_ in usages:
        hours = used.get("elapsed", 0.0) / _HOUR
        if "cpu" in used and "cpus" in requested:
            cores += max(0.0, requested["cpus"] * hours - used["cpu"] / _HOUR)
        if "max_rss" in used and "mem_gb" in requested:
            gigabytes += max(0.0, requested["mem_gb"] - used["max_rss"] / GIGABYTE) * hours
    return TaskSummary(
        task,
        len(usages),
        _spread(usages, "mem_gb", [used["max_rss"] / GIGABYTE for used, *_ in usages if "max_rss" in used]),
        _spread(usages, "cpus", [busy for busy in map(busy_cpus, usages) if busy]),
        _spread(usages, "timeout_min", [used["elapsed"] / 60 for used, *_ in usages if "elapsed" in used]),
        cores,
        gigabytes,
    )


def _spread(usages: Sequence[TaskUsage], request: str, used: Sequence[float]) -> Spread:
    """Return the request of the newest job that has one, and the quantiles of the usage."""
    requested = next((usage.requested[request] for usage in usages if request in usage.requested), None)
    if not used:
        return Spread(requested, None, None, None)
    cuts = quantiles(used, n=20, method="inclusive") if len(used) > 1 else [used[0]] * 19
    return Spread(requested, cuts[9], cuts[18], max(used))


def usage_tsv(summaries: Iterable[TaskSummary]) -> str:
    """Return one line for each task, its fields separated by tabs."""
    lines = [COLUMNS, *(tuple(_cell(value) for value in _values(summary)) for summary in summaries)]
    return "".join("\t".join(line) + "\n" for line in lines)


def usage_text(summaries: Sequence[TaskSummary]) -> str:
    """Return a table for a terminal, and the suggested requests as code."""
    rows = [("task", "jobs", "memory GB", "cpus", "minutes", "unused"), *map(_row, summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    suggested = {summary.task: summary.suggestion for summary in summaries if summary.suggestion}
    notes = ["", "memory, cpus and minutes: p50 / p95 of the jobs that succeeded, and the request; ?: not measured"]
    return "\n".join([*table, *notes, *_snippets(suggested)]) + "\n"


def _snippets(suggested: Mapping[str, Mapping[str, float | int]]) -> list[str]:
    if not suggested:
        return ["No request is much larger than the usage."]
    in_file = [f"    {task}: slurm={dict(slurm)!r}" for task, slurm in suggested.items()]
    in_dag = [f"        {task!r}: {{'slurm': {dict(slurm)!r}}}," for task, slurm in suggested.items()]
    return [
        "",
        "Suggested requests, in the workflow file:",
        *in_file,
        "or in the DAG file:",
        "    overrides={",
        *in_dag,
        "    }",
    ]


def _row(summary: TaskSummary) -> tuple[str, ...]:
    spreads = (summary.memory, summary.cpus, summary.minutes)
    unused = f"{summary.core_hours:.1f} core-hours, {summary.gigabyte_hours:.1f} GB-hours"
    return (summary.task, f"{summary.jobs:,}", *map(_shown, spreads), unused)


def _shown(spread: Spread) -> str:
    used = "?" if spread.p50 is None else f"{spread.p50:.2f} / {spread.p95:.2f}"
    return used if spread.requested is None else f"{used} of {spread.requested:g}"


def _values(summary: TaskSummary) -> list[object]:
    spreads = (summary.memory, summary.cpus, summary.minutes)
    numbers = [value for spread in spreads for value in spread[:3]]
    suggestion = json.dumps(summary.suggestion) if summary.suggestion else ""
    return [summary.task, summary.jobs, *numbers, summary.core_hours, summary.gigabyte_hours, suggestion]


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    return printable(text)
