"""``sppe report``: the choice of a run and of a form."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

import pendulum

from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.cli.run_command import LOGS
from airflow_provider_sewer.core.errors import SewerError, StateError
from airflow_provider_sewer.execution.run_record import RUN_FILE, RunRecord, read_run, recorded_runs
from airflow_provider_sewer.reports.job_usages import (
    accounted_jobs,
    accounted_runs,
    jobs_below,
    jobs_of_runs,
    latest_jobs,
    latest_runs,
)
from airflow_provider_sewer.reports.page import report_page
from airflow_provider_sewer.reports.table import report_json, report_tsv
from airflow_provider_sewer.reports.usage_summary import summarize
from airflow_provider_sewer.reports.usage_table import usage_text, usage_tsv

FORMATS = ("html", "json", "tsv")


class RunFolders(NamedTuple):
    """Log folders in which runs are looked for.

    :param log_dir: the log folder of one run, or of the last of several; ``None`` for those below ``.sewer/logs``.
    """

    log_dir: str | None

    def __str__(self) -> str:
        return f"in {os.path.abspath(self.log_dir)}" if self.log_dir else f"below {os.path.abspath(LOGS)}"

    def records(self) -> list[str]:
        """Return the records of the runs, the newest first."""
        if self.log_dir is None:
            return recorded_runs(LOGS)
        record = os.path.join(self.log_dir, RUN_FILE)
        return [record] if os.path.isfile(record) else []


def find_run(run: str | None, folders: RunFolders) -> RunRecord:
    """Return a recorded run.

    :param run: log folder of a run, or a workflow file for its latest run; by default, the latest run of all.
    :param folders: where to look for it.
    :raises StateError: when there is none.
    """
    if run is not None and os.path.isdir(run):
        return read_run(os.path.join(run, RUN_FILE))
    for record in folders.records():
        found = read_run(record)
        if run is None or found.file == os.path.abspath(run):
            return found
    of_file = f" of {run}" if run else ""
    raise StateError(f"no recorded run{of_file} {folders}; name the log folder of a run")


def usage(path: str, folders: RunFolders, since: str | None, form: str) -> str:
    """Return the usage of tasks over their jobs.

    :param path: a workflow file, for its recorded runs; or a folder, for the job directories below it.
    :param folders: where to look for runs.
    :param since: date or duration; earlier runs are left out.
    :param form: ``text`` or ``tsv``.
    :raises StateError: when no job is recorded.
    """
    moment = None if since is None else _moment(since)
    if is_folder := os.path.isdir(path):
        jobs, note = accounted_jobs(latest_jobs(jobs_below(path), moment))
    else:
        runs, note = accounted_runs(latest_runs(_runs_of(path, folders), moment))
        jobs = jobs_of_runs(runs)
    _warn(note)
    if not jobs and is_folder:
        raise StateError(f"no finished job is recorded below {os.path.abspath(path)}; name a run_dir or a folder in it")
    if not jobs:
        raise StateError(f"no finished job of {path} is recorded {folders}; run it with --on slurm")
    summaries = summarize(jobs)
    return usage_tsv(summaries) if form == "tsv" else usage_text(summaries, "" if is_folder else path)


def _runs_of(file: str, folders: RunFolders) -> list[RunRecord]:
    """Return the recorded runs of a workflow file, the newest first."""
    return [run for run in map(read_run, folders.records()) if run.file == os.path.abspath(file)]


def _warn(note: str) -> None:
    if note:
        write_message(f"sppe: {note}")


def _moment(since: str) -> float:
    """Return seconds since 1970 for a date, or for a duration such as ``7d``, ``12h`` or ``P2W`` before now."""
    text = f"P{since[:-1]}D" if since[-1:] == "d" else f"PT{since[:-1]}H" if since[-1:] == "h" else since
    with suppress(ValueError, OverflowError):  # OverflowError: a duration before the year 1
        parsed = pendulum.parse(text, tz="local")
        if isinstance(parsed, pendulum.Duration):
            return (pendulum.now() - parsed).timestamp()
        if isinstance(parsed, pendulum.DateTime):
            return parsed.timestamp()
    raise SewerError(f"--since must be a date or a duration such as 7d, 12h or 2026-01-31, got {since!r:.200}")


def report(run: RunRecord, folders: RunFolders, form: str, folder: str) -> str:
    """Return the report on a run, with the usage that Slurm's accounting has of its jobs.

    :param folders: where to look for the last runs of the same file.
    :param form: one of :data:`FORMATS`.
    :param folder: where it will be.
    """
    others = [
        other for other in _runs_of(run.file, folders) if os.path.abspath(other.path) != os.path.abspath(run.path)
    ]
    runs, note = accounted_runs([run, *latest_runs(others, None)])
    _warn(note)
    run = runs[0]
    newest_first = sorted(runs, key=lambda each: -each.started)
    summaries = summarize(jobs_of_runs(latest_runs(newest_first, None)))
    if form == "html":
        return report_page(run, summaries, folder)
    return report_json(run, summaries) + "\n" if form == "json" else report_tsv(run, summaries)
