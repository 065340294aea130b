"""``sppe report``: the choice of a run and of a form."""

from __future__ import annotations

import os

from airflow_provider_sewer.core.errors import StateError
from airflow_provider_sewer.execution.run_record import RUN_FILE, RunRecord, read_run, recorded_runs
from airflow_provider_sewer.reports.page import report_page
from airflow_provider_sewer.reports.table import report_json, report_tsv

FORMATS = ("html", "json", "tsv")


def find_run(run: str | None, logs: str) -> RunRecord:
    """Return a recorded run.

    :param run: log folder of a run, or a workflow file for its latest run; by default, the latest run of all.
    :param logs: the folder of log folders.
    :raises StateError: when there is none.
    """
    if run is not None and os.path.isdir(run):
        return read_run(os.path.join(run, RUN_FILE))
    for record in recorded_runs(logs):
        found = read_run(record)
        if run is None or found.file == os.path.abspath(run):
            return found
    of_file = f" of {run}" if run else ""
    raise StateError(f"no recorded run{of_file} below {os.path.abspath(logs)}; name the log folder of a run")


def report(run: RunRecord, form: str, folder: str) -> str:
    """Return the report on a run.

    :param form: one of :data:`FORMATS`.
    :param folder: where it will be.
    """
    if form == "html":
        return report_page(run, folder)
    return report_json(run) + "\n" if form == "json" else report_tsv(run)
