"""Report on a run as a self-contained HTML page: no script, no font and nothing from the network."""

from __future__ import annotations

import math
import os
from collections import Counter
from html import escape
from itertools import compress
from typing import TYPE_CHECKING
from urllib.parse import quote

import pendulum

from airflow_provider_sewer.core.trusted_files import open_own
from airflow_provider_sewer.execution.durations import duration_text
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.exporters.diagram import printable
from airflow_provider_sewer.exporters.svg import PAGE, STYLE, TaskMark, graph_svg
from airflow_provider_sewer.reports.job_usages import LAST_RUNS
from airflow_provider_sewer.reports.state_styles import SHOWN, UNKNOWN, shown_state
from airflow_provider_sewer.reports.usage_summary import gigabytes_used
from airflow_provider_sewer.reports.usage_table import HEADINGS, snippets, usage_notes, usage_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_sewer.execution.run_record import RunRecord, TaskRecord
    from airflow_provider_sewer.reports.usage_summary import TaskSummary

#: Number of lines of a failed task's log, and maximum bytes that are read for them.
_LAST_LINES, _LAST_BYTES = 15, 32 * 1024
#: Maximum number of failures that are shown with their logs.
_MOST_FAILURES = 50
#: Maximum number of tasks that are shown with their requests.
_MOST_REQUESTS = 200
#: With more failures, their logs are folded.
_MOST_OPEN = 5
#: Width of the timeline and its names; height of a row, and maximum height of all rows, in pixels.
_TIMELINE, _NAMES, _ROW, _TALLEST = 1160, 190, 22, 2600
#: Width left of a timeline without names, for half of the first mark.
_MARGIN = 20
#: A row that is lower than this has no name.
_ROW_WITH_NAME = 13
_MOST_TICKS = 8
_WIDEST_NAME = 24
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
#: Seconds between two marks of the timeline, and the units of their text.
_STEPS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12, 24)),
)
_UNITS = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1.0, "s"))

_NUMBER, _REASON = ' class="number"', ' class="reason"'
#: Columns besides task and state, with their attributes; one that is empty in all rows is left out.
_COLUMNS = (
    *((name, _NUMBER) for name in ("Waited", "Ran", "CPU used", "CPUs requested", "Memory used", "Memory requested")),
    ("Time limit", _NUMBER),
    ("Log", ""),
    ("Reason", _REASON),
)

_STYLE = """
.chips > span { border: 1px solid var(--line); border-radius: 1rem; margin-right: .5rem; padding: .1rem .7rem;
  display: inline-block; margin-bottom: .3rem; }
.chips .sign, td .sign { color: var(--state, var(--soft)); font-weight: 700; }
.facts { color: var(--soft); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--box); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; white-space: normal; position: sticky; top: 0; background: var(--paper); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.reason { white-space: normal; min-width: 16rem; }
pre { background: var(--box); border-radius: 6px; overflow-x: auto; padding: .8rem; font-size: .8rem; }
a { color: var(--busy); } .queue { fill: var(--idle); } .tick { stroke: var(--box); } .soft { fill: var(--soft); }
summary { cursor: pointer; margin: .6rem 0; }
"""


def report_page(run: RunRecord, summaries: Sequence[TaskSummary], folder: str) -> str:
    """Return the page.

    :param run: the run.
    :param summaries: the usage of its tasks over the last runs.
    :param folder: where the page will be, so that its links to the logs are relative.
    """
    title = escape(printable(run.workflow))
    sections = [
        _head(run),
        _section("Graph", [f'<div class="scroll">{_graph(run)}</div>']),
        _section("Failures", _failures(run, folder)),
        _section("Timeline", _timeline(run)),
        _section("Requests", _requests(run, summaries)),
        _section("Tasks", _table(run, folder)),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>{STYLE}{PAGE}{_STYLE}</style>\n</head>\n"
        f'<body class="sewer">\n<h1>{title}</h1>\n' + "\n".join(filter(None, sections)) + "\n</body>\n</html>\n"
    )


def _section(title: str, lines: Iterable[str]) -> str:
    text = "\n".join(lines)
    return f"<section>\n<h2>{title}</h2>\n{text}\n</section>" if text else ""


def _head(run: RunRecord) -> str:
    counts = Counter(shown_state(run, task) for task in run.tasks.values())
    chips = [
        f'<span class="{state.style}"><span class="sign">{state.sign}</span> {count:,} {state.word}</span>'
        for state in (*SHOWN.values(), UNKNOWN)
        if (count := counts[state])
    ]
    end = (
        f"took {duration_text(run.ended - run.started)}"
        if run.ended is not None
        else "is running"
        if run.is_running
        else "was killed"
    )
    began = pendulum.from_timestamp(run.started, tz="local").format("YYYY-MM-DD HH:mm:ss zz")
    facts = f"{escape(printable(run.file))}, started {escape(began)}, {end}"
    return f'<p class="facts">{facts}</p>\n<p class="chips">{"".join(chips)}</p>'


def _graph(run: RunRecord) -> str:
    marks = {}
    for name, task in run.tasks.items():
        state = shown_state(run, task)
        marks[name] = TaskMark(state.style, state.sign, ", ".join(filter(None, [task.target, state.word, _ran(task)])))
    return graph_svg({name: task.upstream for name, task in run.tasks.items()}, marks, title=run.workflow)


def _failures(run: RunRecord, folder: str) -> Iterator[str]:
    failed = [task for task in run.tasks.values() if task.state is TaskState.FAILED]
    is_open = " open" if len(failed) <= _MOST_OPEN else ""
    for task in failed[:_MOST_FAILURES]:
        reason = _text(task.reason.partition("\n")[0])
        yield f"<details{is_open}><summary><b>{escape(printable(task.name))}</b>: {reason}</summary>"
        if lines := _last_lines(task.log):
            yield f"<p>The last lines of {_link(task.log, folder, 'its log')}:</p>\n<pre>{_text(lines)}</pre>"
        else:
            yield f"<pre>{_text(task.reason)}</pre>"
        if task.usage.directory:
            yield f'<p class="facts">Job {escape(task.usage.job_id)}: {escape(printable(task.usage.directory))}</p>'
        yield "</details>"
    if len(failed) > _MOST_FAILURES:
        yield f"<p>{len(failed) - _MOST_FAILURES:,} more tasks failed; the table has their logs.</p>"


def _last_lines(path: str) -> str:
    try:
        with open_own(path, is_private=False) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
            text = file.read(_LAST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_LAST_LINES:])


def _timeline(run: RunRecord) -> Iterator[str]:
    tasks = [task for task in run.tasks.values() if task.submitted is not None]
    if not tasks:
        return
    tasks.sort(key=lambda task: task.submitted or 0.0)
    end = run.ended or max(task.ended or task.started or task.submitted or 0.0 for task in tasks)
    length = max(end - run.started, 0.001)
    row = min(_ROW, max(1.0, _TALLEST / len(tasks)))
    left = _NAMES if row >= _ROW_WITH_NAME else _MARGIN
    scale = (_TIMELINE - left - 40) / length
    height = row * len(tasks) + 24
    yield f'<div class="scroll"><svg class="sewer" role="img" width="{_TIMELINE}" height="{height:g}" '
    yield f'viewBox="0 0 {_TIMELINE} {height:g}"><title>When each task waited and ran</title>'
    step = _tick_step(length)
    for number in range(int(length / step) + 1):
        x = left + number * step * scale
        yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="18" y2="{height:g}"/>'
        yield f'<text class="soft" x="{x:.1f}" y="12" text-anchor="middle">{_tick(number * step, step)}</text>'
    for number, task in enumerate(tasks):
        yield from _bars(run, task, 22 + number * row, row, left, scale, end)
    yield "</svg></div>"


def _bars(
    run: RunRecord, task: TaskRecord, y: float, row: float, left: float, scale: float, end: float
) -> Iterator[str]:
    state = shown_state(run, task)
    submitted = task.submitted or run.started
    started, ended = task.started or task.ended or end, task.ended or end
    height = max(row - 4, row * 0.8)
    yield f"<g><title>{escape(printable(task.name))}: {state.word}, {_ran(task)}</title>"
    if row >= _ROW_WITH_NAME:
        yield f'<text x="0" y="{y + height * 0.75:.1f}">{escape(_cut(task.name))}</text>'
    if started > submitted:
        yield _bar("queue", left + (submitted - run.started) * scale, y, (started - submitted) * scale, height)
    if task.started is not None:
        yield _bar(f"bar {state.style}", left + (started - run.started) * scale, y, (ended - started) * scale, height)
    yield "</g>"


def _bar(style: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 1.0):.1f}" height="{height:.1f}" rx="2"/>'


def _tick_step(length: float) -> float:
    """Return the seconds between two marks of a timeline, a step that is easy to read."""
    return next(
        (step for step in _STEPS if length / step <= _MOST_TICKS), math.ceil(length / _MOST_TICKS / _DAY) * _DAY
    )


def _tick(seconds: float, step: float) -> str:
    """Return the text of a mark, in the largest unit in which the step is whole, else in seconds."""
    unit, name = next(((unit, name) for unit, name in _UNITS if step % unit == 0), _UNITS[-1])
    return f"{seconds / unit:g} {name}"


def _requests(run: RunRecord, summaries: Sequence[TaskSummary]) -> Iterator[str]:
    if not summaries:
        return
    shown = summaries[:_MOST_REQUESTS]
    yield f'<p class="facts">Jobs of the last {LAST_RUNS} runs. p50 / p95 of the jobs that succeeded, and the request. '
    yield "?: not measured</p>"
    yield '<div class="scroll"><table>\n<thead><tr>'
    yield from (f"<th>{name.capitalize()}</th>" for name in HEADINGS)
    yield "</tr></thead>\n<tbody>"
    for summary in shown:
        yield f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in usage_row(summary))}</tr>"
    yield "</tbody></table></div>"
    if len(summaries) > len(shown):
        yield f"<p>{len(summaries) - len(shown):,} more tasks; --format tsv has all of them.</p>"
    text = escape("\n".join([*usage_notes(shown), *snippets(shown, run.file)]).strip())
    yield f"<pre>{text}</pre>"


def _table(run: RunRecord, folder: str) -> Iterator[str]:
    rows = {task.name: [*_numbers(task), *_texts(task, folder)] for task in run.tasks.values()}
    is_used = [any(column) for column in zip(*rows.values(), strict=True)]
    yield '<div class="scroll"><table>\n<thead><tr><th>Task</th><th>State</th>'
    yield from (f"<th{style}>{name}</th>" for name, style in compress(_COLUMNS, is_used))
    yield "</tr></thead>\n<tbody>"
    for task in run.tasks.values():
        state = shown_state(run, task)
        yield f'<tr><td>{escape(printable(task.name))}</td><td class="{state.style}">'
        tries = f" (try {task.tries})" if task.tries > 1 else ""
        yield f'<span class="sign">{state.sign}</span> {state.word}{tries}</td>'
        cells = zip(rows[task.name], _COLUMNS, strict=True)
        yield from (f"<td{style}>{cell}</td>" for cell, (_, style) in compress(cells, is_used))
        yield "</tr>"
    yield "</tbody></table></div>"


def _texts(task: TaskRecord, folder: str) -> Iterator[str]:
    yield _link(task.log, folder, "log") if os.path.exists(task.log) else ""
    yield _text(task.reason.partition("\n")[0])


def _numbers(task: TaskRecord) -> Iterator[str]:
    used, requested = task.usage.used, task.usage.requested
    waited = None if task.submitted is None or task.started is None else task.started - task.submitted
    yield duration_text(waited) if waited else ""
    yield _ran(task)
    yield f"{used['cpu']:.2f} s" if "cpu" in used else ""
    yield f"{requested['cpus']:g}" if "cpus" in requested else ""
    yield "" if (memory := gigabytes_used(task.usage)) is None else f"{memory:.2f} GB"
    yield f"{requested['mem_gb']:g} GB" if "mem_gb" in requested else ""
    yield f"{requested['timeout_min']:g} min" if "timeout_min" in requested else ""


def _ran(task: TaskRecord) -> str:
    if "elapsed" in task.usage.used:
        return duration_text(task.usage.used["elapsed"])
    if task.started is not None and task.ended is not None:
        return duration_text(task.ended - task.started)
    return ""


def _link(path: str, folder: str, text: str) -> str:
    return f'<a href="{escape(quote(os.path.relpath(path, folder)))}">{text}</a>'


def _text(text: str) -> str:
    return escape("\n".join(map(printable, text.splitlines())))


def _cut(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _WIDEST_NAME else name[: _WIDEST_NAME - 1] + "…"
