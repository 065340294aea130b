"""``sppe report``: the choice of a run and of a form."""

from __future__ import annotations

import os
from typing import NamedTuple

import pendulum

from airflow_provider_sewer.cli.messages import write_message
from airflow_provider_sewer.cli.run_command import LOGS
from airflow_provider_sewer.core.errors import SewerError, StateError
from airflow_provider_sewer.execution.run_record import RUN_FILE, RunRecord, read_run, recorded_runs
from airflow_provider_sewer.reports.accounted_usage import with_accounting
from airflow_provider_sewer.reports.page import report_page
from airflow_provider_sewer.reports.table import report_json, report_tsv
from airflow_provider_sewer.reports.usage_summary import summarize, usage_text, usage_tsv

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


def usage(file: str, folders: RunFolders, since: str | None, form: str) -> str:
    """Return the usage of the tasks of a workflow file over its recorded runs.

    :param file: the workflow file.
    :param folders: where to look for them.
    :param since: date or duration; earlier runs are left out.
    :param form: ``text`` or ``tsv``.
    :raises StateError: when no job is recorded.
    """
    runs = [run for run in map(read_run, folders.records()) if run.file == os.path.abspath(file)]
    summaries = summarize(_accounted(runs), since=_moment(since) if since else 0.0)
    if not summaries:
        raise StateError(f"no finished job of {file} is recorded {folders}; run it with --on slurm")
    return usage_tsv(summaries) if form == "tsv" else usage_text(summaries)


def _accounted(runs: list[RunRecord]) -> list[RunRecord]:
    runs, note = with_accounting(runs)
    if note:
        write_message(f"sppe: {note}")
    return runs


def _moment(since: str) -> float:
    """Return seconds since 1970 for a date, or for a duration such as ``7d``, ``12h`` or ``P2W`` before now."""
    text = f"P{since[:-1]}D" if since[-1:] == "d" else f"PT{since[:-1]}H" if since[-1:] == "h" else since
    try:
        parsed = pendulum.parse(text, tz="local")
    except ValueError:
        parsed = None
    if isinstance(parsed, pendulum.Duration):
        return (pendulum.now() - parsed).timestamp()
    if isinstance(parsed, pendulum.DateTime):
        return parsed.timestamp()
    raise SewerError(f"--since must be a date or a duration such as 7d, 12h or 2026-01-31, got {since!r:.200}")


def report(run: RunRecord, form: str, folder: str) -> str:
    """Return the report on a run, with the usage that Slurm's accounting has of its jobs.

    :param form: one of :data:`FORMATS`.
    :param folder: where it will be.
    """
    (run,) = _accounted([run])
    if form == "html":
        return report_page(run, folder)
    return report_json(run) + "\n" if form == "json" else report_tsv(run)
