"""The drill's findings: each kind of broken promise is found in a ledger, and no other; see airflow/test_drill.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".dev"))
from drill import faults as drill  # noqa: E402
from drill.faults import Entry, TaskSeen, find_faults, line_of  # noqa: E402
from drill.project import Project  # noqa: E402

sys.path.remove(str(ROOT / ".dev"))

TASK = "drill_worker/run/job_1/-1"
LINES = {"stdout": 4, "stderr": 2}


def entry(event, job="7", attempt="1", task=TASK):
    return Entry(task, job, attempt, event, 0.0, LINES if event == "end" else {})


def seen(state="success", job="7", **more):
    logged = {stream: [line_of(TASK, job, number) for number in range(count)] for stream, count in LINES.items()}
    return TaskSeen(TASK, state, **{"result": {"job": job}, "logged": logged, **more})


WELL = [entry("start"), entry("end")]
AGAIN = [entry("start", "8", "2"), entry("end", "8", "2")]


def counts(task, ledger, **more):
    """Return the counts that are not 0."""
    return {kind: count for kind, count in find_faults([task], ledger, **more).counts.items() if count}


@pytest.mark.parametrize("has_product", [None, True])
def test_find_faults_success_with_one_job_is_without_fault(has_product):
    findings = find_faults([seen(has_product=has_product)], WELL)
    assert findings.faults == []
    assert findings.figures["green"] == findings.figures["modules started"] == 1


@pytest.mark.parametrize(
    ("task", "ledger"),
    [
        (seen(logged={}), []),
        (seen(), [entry("start")]),
        (seen(), [entry("start"), entry("signal")]),
        (seen(result=None), WELL),
        (seen(result={"job": "8"}), WELL),
        (seen(has_product=False), WELL),
    ],
    ids=["no start", "no end", "ended by a signal", "no result", "result of another job", "no product"],
)
def test_find_faults_success_without_evidence_is_false_green(task, ledger):
    assert counts(task, ledger) == {drill.FALSE_GREENS: 1}


@pytest.mark.parametrize(
    "ledger",
    [
        [entry("start"), *AGAIN],
        [entry("start"), entry("signal"), *AGAIN],
        [entry("start"), entry("start", "8", "2"), entry("end"), entry("end", "8", "2")],
        [entry("start", "8", "1"), *AGAIN],
    ],
    ids=["first vanished", "first cancelled", "both ran to the end", "same job twice"],
)
def test_find_faults_second_start_is_second_job(ledger):
    assert counts(seen(job="8"), ledger) == {drill.SECOND_JOBS: 1}


def test_find_faults_start_after_job_lost_by_slurmctld_is_allowed():
    assert counts(seen(job="8"), [entry("start"), *AGAIN], lost_by_slurm={"7"}) == {}


def test_find_faults_job_restarted_by_slurmctld_is_allowed():
    twice = [entry("start"), entry("signal"), *WELL]
    assert counts(seen(), twice, lost_by_slurm={"7"}) == {}
    assert counts(seen(), twice) == {drill.SECOND_JOBS: 1}


def test_find_faults_start_after_an_end_is_computed_again():
    """Whether Slurm has lost the job is nothing to a success that is on record."""
    assert counts(seen(job="8"), [*WELL, *AGAIN], lost_by_slurm={"7"}) == {drill.COMPUTED_AGAIN: 1}
    third = [entry("start", "9", "3"), entry("end", "9", "3")]
    assert counts(seen(job="9"), [*WELL, *AGAIN, *third]) == {drill.COMPUTED_AGAIN: 2}


@pytest.mark.parametrize("state", ["running", "deferred", "scheduled", "up_for_retry", None])
def test_find_faults_unfinished_task_is_hang(state):
    assert counts(seen(state, logged={}), WELL) == {drill.HANGS: 1}


def test_find_faults_queued_task_is_figure_not_hang():
    findings = find_faults([seen("queued", logged={})], WELL)
    assert findings.faults == []
    assert findings.figures["tasks that LocalExecutor left queued"] == 1


def test_find_faults_module_of_no_listed_task_is_hang():
    assert counts(seen(), [*WELL, entry("start", task="drill_array/run/jobs/3")]) == {drill.HANGS: 1}


@pytest.mark.parametrize("state", ["failed", "upstream_failed", "skipped", "removed"])
def test_find_faults_task_that_ended_otherwise_is_failed(state):
    assert counts(seen(state), WELL) == {drill.FAILED: 1}


def test_find_faults_counts_each_lost_line_of_both_streams():
    logged = {"stdout": [line_of(TASK, "7", number) for number in (0, 2)], "stderr": [line_of(TASK, "7", 0)]}
    findings = find_faults([seen(logged=logged)], WELL)
    assert findings.counts[drill.LOST_LINES] == 3
    assert [fault.text for fault in findings.faults] == [
        "2 of 4 lines of stdout of job 7 of attempt 1, 1, 3",
        "1 of 2 lines of stderr of job 7 of attempt 1, 1",
    ]


def test_find_faults_lines_of_another_job_do_not_stand_for_lost_ones():
    assert counts(seen(job="8", result={"job": "7"}), WELL) == {drill.LOST_LINES: 6}


def test_find_faults_doubled_lines_are_counted_but_no_fault():
    logged = {stream: lines * 3 for stream, lines in seen().logged.items()}
    findings = find_faults([seen(logged=logged), TaskSeen("other/run/job_1/-1", "success", result={"job": "9"})], WELL)
    assert [findings.figures[name] for name in (drill.DOUBLED_LINES, "tasks with doubled lines")] == [12, 1]
    assert [(fault.task, fault.count) for fault in findings.doubled] == [(TASK, 12)]
    assert [fault.task for fault in findings.faults] == ["other/run/job_1/-1"]


def test_findings_table_names_all_faults():
    table = find_faults([seen("running")], [entry("start"), *AGAIN]).table()
    assert [line.split() for line in table.splitlines()][-len(drill.FAULTS) :] == [
        ["false", "greens", "0", "has", "to", "be", "0"],
        ["second", "jobs", "1", "has", "to", "be", "0,", "FAULT"],
        ["successes", "computed", "again", "0", "has", "to", "be", "0"],
        ["hangs", "1", "has", "to", "be", "0,", "FAULT"],
        ["lost", "lines", "0", "has", "to", "be", "0"],
        ["failed", "tasks", "0", "has", "to", "be", "0"],
    ]


def test_project_reads_the_ledger_as_modules_write_it(tmp_path):
    project = Project(tmp_path)
    project.write_modules()
    with (tmp_path / "ledger.jsonl").open("a") as file:
        for one in WELL:
            print(json.dumps(one._asdict()), file=file)
    assert project.ledger() == WELL
