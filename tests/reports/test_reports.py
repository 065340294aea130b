"""Reports on a recorded run: page, table and advice."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser

import pytest

from airflow_provider_sewer.execution.run_record import RunRecord, TaskRecord
from airflow_provider_sewer.execution.task_states import TaskState
from airflow_provider_sewer.execution.task_usage import TaskUsage
from airflow_provider_sewer.reports.job_usages import jobs_of_runs
from airflow_provider_sewer.reports.page import report_page
from airflow_provider_sewer.reports.table import COLUMNS, report_json, report_tsv
from airflow_provider_sewer.reports.usage_summary import summarize

GIGABYTE = 1024.0**3
JOB = TaskUsage(
    {"elapsed": 600.0, "cpu": 600.0, "max_rss": 2.1 * GIGABYTE},
    {"cpus": 8.0, "mem_gb": 16.0, "timeout_min": 240.0},
    "4711",
    "w.train-1",
    "/runs/1",
    None,
    "n1",
    "success",
)
TASKS = (
    TaskRecord("fetch", "pkg.fetch", [], "fetch.log", TaskState.UP_TO_DATE, reason="it is up to date"),
    TaskRecord("train", "pkg.train", ["fetch"], "train.log", TaskState.SUCCEEDED, 1.0, 61.0, 661.0, 660.0, "", JOB),
    TaskRecord("test", "pkg.test", ["train"], "test.log", TaskState.FAILED, 661.0, 661.0, 662.0, 1.0, "exit code 1"),
    TaskRecord("plot", "pkg.plot", ["test"], "plot.log", TaskState.UPSTREAM_FAILED, reason="'test' failed"),
)


def run_of(*tasks: TaskRecord, ended: float | None = 700.0, is_running: bool = False) -> RunRecord:
    return RunRecord("flow", "/p/flow.py", "/p/run.jsonl", 0.0, ended, is_running, {task.name: task for task in tasks})


SUMMARIES = summarize(jobs_of_runs([run_of(*TASKS)]))


class Elements(HTMLParser):
    """Elements of a page and its text; it fails at a tag that is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_shows_states_times_requests_and_advice() -> None:
    text = Elements(report_page(run_of(*TASKS), SUMMARIES, "/p")).text
    for part in (
        "1 failed", "1 upstream failed", "1 succeeded", "1 up to date", "took 11 min 40 s", "1 min 0 s",
        "10 min 0 s", "16 GB", "2.10 GB", "2.10 / 2.10 of 16", "1.00 / 1.00 of 8", "10.00 / 10.00 of 240",
        "1.2 core-hours, 2.3 GB-hours", "train: slurm={'mem_gb': 3, 'timeout_min': 15, 'cpus_per_task': 1}",
        "fewer than 5 jobs", "exit code 1",
    ):  # fmt: skip
        assert part in text


def test_page_loads_nothing_and_runs_no_script() -> None:
    page = Elements(report_page(run_of(*TASKS), SUMMARIES, "/p"))
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe"}
    assert {attrs["href"] for _, attrs in page.elements if "href" in attrs} <= {"fetch.log", "train.log", "test.log"}


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "</pre><b>", "a\x00b\ud800", '" onload="x'])
def test_page_escapes_names_reasons_and_logs(hostile, tmp_path) -> None:
    log = tmp_path / "a.log"
    log.write_text(hostile, errors="surrogateescape" if "\ud800" not in hostile else "replace")
    task = TaskRecord(hostile, hostile, [], str(log), TaskState.FAILED, 1.0, 1.0, 2.0, 1.0, hostile)
    page = report_page(run_of(task)._replace(workflow=hostile, file=hostile), SUMMARIES, str(tmp_path))
    expected = Elements(report_page(run_of(task._replace(name="a", target="b", reason="c")), SUMMARIES, str(tmp_path)))
    assert [tag for tag, _ in Elements(page).elements] == [tag for tag, _ in expected.elements]
    page.encode("utf-8")


def test_page_shows_last_lines_of_failed_log_with_relative_link(tmp_path) -> None:
    (tmp_path / "logs").mkdir()
    log = tmp_path / "logs" / "a b.log"
    log.write_text("".join(f"line {n}\n" for n in range(100000)))
    task = TaskRecord("a", "m", [], str(log), TaskState.FAILED, 1.0, 1.0, 2.0, 1.0, "failed")
    page = Elements(report_page(run_of(task), SUMMARIES, str(tmp_path)))
    assert "line 99985\nline 99986" in page.text
    assert "line 99984\n" not in page.text
    assert ("a", {"href": "logs/a%20b.log"}) in page.elements


@pytest.mark.parametrize(
    ("is_running", "words"), [(True, ("is running", "1 running")), (False, ("was killed", "1 unknown, the run was"))]
)
def test_page_of_unfinished_run_names_its_state(is_running, words) -> None:
    task = TaskRecord("a", "m", [], "a.log", TaskState.RUNNING, 1.0, 1.0)
    text = Elements(report_page(run_of(task, ended=None, is_running=is_running), SUMMARIES, "/p")).text
    assert all(word in text for word in words)


def test_tsv_has_a_line_for_each_task_with_all_columns() -> None:
    lines = report_tsv(run_of(*TASKS, TaskRecord("a\tb\n", "m", [], "x")), SUMMARIES).splitlines()
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert tuple(rows[0]) == COLUMNS
    assert [row["task"] for row in rows] == ["fetch", "train", "test", "plot", r"a\tb\n"]
    assert (rows[1]["waited_s"], rows[1]["ran_s"], rows[1]["mem_used_gb"]) == ("60", "600", "2.1")
    assert rows[1]["job_id"] == "4711"


def test_json_times_are_iso_8601_and_missing_values_null() -> None:
    report = json.loads(report_json(run_of(*TASKS), SUMMARIES))
    assert report["tasks"][0]["started"] is None
    assert report["tasks"][1]["started"].startswith("1970-01-01T00:01:01") or "T" in report["tasks"][1]["started"]
    assert report["tasks"][2]["reason"] == "exit code 1"


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        (0.9, ["0 s", "0.2 s", "0.4 s", "0.6 s", "0.8 s"]),
        (11.3, ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]),
        (100.0, ["0 s", "15 s", "30 s", "45 s", "60 s", "75 s", "90 s"]),
        (700.0, ["0 min", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (3 * 3600.0, ["0 min", "30 min", "60 min", "90 min", "120 min", "150 min", "180 min"]),
        (30 * 3600.0, ["0 h", "6 h", "12 h", "18 h", "24 h", "30 h"]),
        (40 * 86400.0, ["0 d", "5 d", "10 d", "15 d", "20 d", "25 d", "30 d", "35 d", "40 d"]),
    ],
)
def test_timeline_marks_have_even_steps(seconds: float, marks: list[str]) -> None:
    task = TaskRecord("a", "m", [], "a.log", TaskState.SUCCEEDED, 0.0, 0.0, seconds, seconds)
    page = report_page(run_of(task, ended=seconds), (), "/p")
    assert re.findall('text-anchor="middle">([^<]+ (?:s|min|h|d))</text>', page) == marks


def test_timeline_without_names_has_room_for_its_first_mark() -> None:
    tasks = [TaskRecord(f"t{n}", "m", [], "a.log", TaskState.SUCCEEDED, 0.0, 0.0, 40.0, 40.0) for n in range(2000)]
    page = report_page(run_of(*tasks, ended=40.0), (), "/p")
    (x,) = re.findall(r'x="([\d.]+)" y="12" text-anchor="middle">0 s<', page)
    assert float(x) >= 12


def test_page_leaves_out_columns_without_values() -> None:
    """A run on this machine has no requests."""
    task = TaskRecord("a", "m", [], "a.log", TaskState.SUCCEEDED, 1.0, 1.0, 3.0, 2.0)
    page = Elements(report_page(run_of(task), (), "/p"))
    assert "Ran" in page.text
    assert not [name for name in ("Waited", "CPUs requested", "Memory requested", "Time limit") if name in page.text]
    assert len([tag for tag, _ in page.elements if tag == "td"]) == len(
        [tag for tag, _ in page.elements if tag == "th"]
    )


def test_rows_of_a_task_have_its_usage_over_the_last_runs() -> None:
    rows = list(csv.DictReader(report_tsv(run_of(*TASKS), SUMMARIES).splitlines(), delimiter="\t"))
    train, plot = rows[1], rows[3]
    assert (train["runs_jobs"], train["runs_mem_gb_p95"], train["runs_wasted_core_hours"]) == ("1", "2.1", "1.16667")
    assert json.loads(train["suggestion"]) == {"mem_gb": 3, "timeout_min": 15, "cpus_per_task": 1}
    assert plot["suggestion"] == ""
