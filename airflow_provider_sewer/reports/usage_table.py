"""Usage of tasks as text: a table for a terminal or for programs, and suggested requests as code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_provider_sewer.exporters.diagram import printable
from airflow_provider_sewer.reports.usage_summary import FEW_JOBS, OUT_OF_MEMORY, TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_provider_sewer.reports.usage_summary import Spread, TaskSummary

#: Columns with the usage of a task. Memory is in gigabytes of one node, processors are those of one node.
USAGE_COLUMNS = (
    "jobs", "out_of_memory", "timeouts", "mem_gb_requested", "mem_gb_p50", "mem_gb_p95", "cpus_requested", "cpus_p50",
    "cpus_p95", "timeout_min_requested", "minutes_p50", "minutes_p95", "gpus_requested", "wasted_core_hours",
    "wasted_gb_hours", "suggestion",
)  # fmt: skip
COLUMNS = ("task", *USAGE_COLUMNS)
HEADINGS = ("task", "jobs", "memory GB", "cpus", "minutes", "unused")


def usage_values(summary: TaskSummary) -> tuple[object, ...]:
    """Return the values of :data:`USAGE_COLUMNS`."""
    spreads = (summary.memory, summary.cpus, summary.minutes)
    numbers = [value for spread in spreads for value in spread[:3]]
    failed = (summary.ends[OUT_OF_MEMORY], summary.ends[TIMEOUT])
    suggestion = json.dumps(summary.suggestion) if summary.suggestion else None
    return (summary.jobs, *failed, *numbers, summary.gpus, summary.core_hours, summary.gigabyte_hours, suggestion)


def usage_tsv(summaries: Iterable[TaskSummary]) -> str:
    """Return one line for each task, its fields separated by tabs."""
    lines = [COLUMNS, *((printable(summary.task), *map(_cell, usage_values(summary))) for summary in summaries)]
    return "".join("\t".join(line) + "\n" for line in lines)


def usage_text(summaries: Sequence[TaskSummary], file: str) -> str:
    """Return a table for a terminal, and the suggested requests as code.

    :param file: the workflow file, whose name decides the language of the suggestions; empty for tasks of Airflow.
    """
    rows = [HEADINGS, *map(usage_row, summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    notes = "memory, cpus and minutes: p50 / p95 of the jobs that succeeded, and the request; ?: not measured"
    return "\n".join([*table, "", notes, *usage_notes(summaries), *snippets(summaries, file)]) + "\n"


def usage_row(summary: TaskSummary) -> tuple[str, ...]:
    """Return the cells of a table for readers, in the order of :data:`HEADINGS`."""
    unused = f"{summary.core_hours:.1f} core-hours, {summary.gigabyte_hours:.1f} GB-hours"
    spreads = (summary.memory, summary.cpus, summary.minutes)
    return (printable(summary.task), f"{summary.jobs:,}", *map(_shown, spreads), unused)


def usage_notes(summaries: Iterable[TaskSummary]) -> list[str]:
    """Return a line for each task that needs an explanation."""
    notes = []
    for summary in summaries:
        failed = [(OUT_OF_MEMORY, "ran out of memory"), (TIMEOUT, "reached the time limit")]
        notes += [
            f"{printable(summary.task)}: {summary.ends[key]:,} of {summary.jobs:,} jobs {words}"
            for key, words in failed
            if summary.ends[key]
        ]
        if summary.gpus:
            notes.append(f"{printable(summary.task)}: {summary.gpus:g} GPUs requested; their usage is not measured")
        if summary.is_guess and summary.suggestion:
            notes.append(f"{printable(summary.task)}: the suggestion rests on fewer than {FEW_JOBS} jobs")
    return notes


def snippets(summaries: Iterable[TaskSummary], file: str) -> list[str]:
    """Return the lines of the suggested requests: for the workflow file or the operator, and for ``overrides=``.

    :param file: the workflow file, whose name decides the language; empty for tasks of Airflow, whose ids begin with
        those of their groups.
    """
    suggested = {summary.task: summary.suggestion for summary in summaries if summary.suggestion}
    if not suggested:
        return ["No request differs much from the usage."]
    in_file = [*map(_yaml if file.endswith((".yaml", ".yml")) else _python, suggested, suggested.values())]
    place = "in the workflow file:" if file else "for the operator:"
    of_group = "or in the DAG file:" if file else "or for sewer_task_group(), by the task in the workflow file:"
    return ["", f"Suggested requests, {place}", *in_file, of_group, *_overrides(suggested, has_groups=not file)]


def _overrides(suggested: Mapping[str, Mapping[str, float | int]], *, has_groups: bool) -> list[str]:
    """Return the lines of the overrides of each group."""
    groups: dict[str, list[str]] = {}
    for task, slurm in suggested.items():
        group, _, name = task.rpartition(".") if has_groups else ("", "", task)
        groups.setdefault(group, []).append(f"        {name!r}: {{'slurm': {slurm!r}}},")
    return [
        line
        for group, lines in groups.items()
        for line in (f"    overrides={{{f'  # {printable(group)}' if group else ''}", *lines, "    }")
    ]


def _python(task: str, slurm: Mapping[str, float | int]) -> str:
    return f"    {printable(task)}: slurm={slurm!r}"


def _yaml(task: str, slurm: Mapping[str, float | int]) -> str:
    parameters = ", ".join(f"{name}: {amount}" for name, amount in slurm.items())
    return f"    {json.dumps(task)}: {{slurm: {{{parameters}}}}}"


def _shown(spread: Spread) -> str:
    used = "?" if spread.p50 is None else f"{spread.p50:.2f} / {spread.p95:.2f}"
    return used if spread.requested is None else f"{used} of {spread.requested:g}"


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    return printable(text)
