"""Usage in the output of sacct, as version 22.05 prints it."""

from __future__ import annotations

import pytest

from airflow_provider_sewer.slurm.parsing import usage_rows

KIB, GIB = 1024.0, 1024.0**3
#: Recorded; the jobs are one of one task, one of five tasks on two nodes, one of three tasks with a GPU on one node, an
#: element of an array, and one that was cancelled before it started.
RECORDED = """\
1|COMPLETED|4|00:00.663|||1|billing=1,cpu=1,mem=200M,node=1||5|1796095178|1796095179|1796095183|n1|/runs/1|one
1.batch|COMPLETED|4|00:00.663|66148K|1|1|cpu=1,mem=200M,node=1|cpu=00:00:00,energy=0,mem=66148K,pages=0||1796095179|1796095179|1796095183|n1||batch
2|COMPLETED|6|00:02.075|||2|billing=5,cpu=5,mem=800M,node=2||5|1796095179|1796095179|1796095185|n[1-2]|/runs/2|multi
2.batch|COMPLETED|6|00:00.010|10908K|1|1|cpu=4,mem=400M,node=1|cpu=00:00:00,mem=10908K||1796095179|1796095179|1796095185|n1||batch
2.0|COMPLETED|5|00:02.064|64696K|5|2|cpu=5,mem=800M,node=2|cpu=00:00:01,mem=322892K||1796095180|1796095180|1796095185|n[1-2]||python3
3|COMPLETED|6|00:01.120|||1|billing=3,cpu=3,gres/gpu=1,mem=300M,node=1||60|1796095179|1796095179|1796095185|n1|/runs/3|three
3.batch|COMPLETED|6|00:00.010|10808K|1|1|cpu=3,gres/gpu=1,mem=300M,node=1|mem=10808K||1796095179|1796095179|1796095185|n1||batch
3.0|COMPLETED|5|00:01.109|64660K|3|1|cpu=3,gres/gpu=1,mem=300M,node=1|mem=193752K||1796095180|1796095180|1796095185|n1||python3
5|CANCELLED by 0|0|00:00:00|||1|||60|1796095179|1796095189|1796095189|None assigned|/runs/5|held
4_0|TIMEOUT|62|00:00.002|||1|billing=1,cpu=1,mem=100M,node=1||1|1796095179|1796095179|1796095241|n2|/runs/4|arr
4_0.batch|CANCELLED|62|00:00.002|3316K|1|1|cpu=1,mem=100M,node=1|mem=3316K||1796095179|1796095179|1796095241|n2||batch
""".splitlines()


def test_usage_rows_of_one_task_have_its_memory_and_times() -> None:
    one = usage_rows(RECORDED)["1"]
    assert (one.row.folder, one.row.name, one.row.status.state, one.row.status.node) == (
        "/runs/1", "one", "COMPLETED", "n1",
    )  # fmt: skip
    assert one.used == {"elapsed": 4.0, "cpu": 0.663, "cpus": 1.0, "max_rss": 66148 * KIB}
    assert one.allocated == {"mem_gb": 200 / 1024, "timeout_min": 5.0}
    assert (one.submitted, one.started, one.ended) == (1796095178.0, 1796095179.0, 1796095183.0)


def test_usage_rows_memory_is_that_of_all_tasks_on_a_node() -> None:
    """Four of the five tasks were on the first node."""
    rows = usage_rows(RECORDED)
    assert rows["2"].used["max_rss"] == 4 * 64696 * KIB
    assert rows["3"].used["max_rss"] == 193752 * KIB


def test_usage_rows_memory_of_evenly_spread_tasks_is_that_of_one_node() -> None:
    lines = [line.replace("|64696K|5|2|", "|64696K|6|2|").replace("mem=322892K", "mem=388176K") for line in RECORDED]
    assert usage_rows(lines)["2"].used["max_rss"] == 3 * 64696 * KIB


def test_usage_rows_allocation_is_that_of_one_node() -> None:
    rows = usage_rows(RECORDED)
    assert rows["2"].allocated == {"mem_gb": 400 / 1024, "nodes": 2.0, "timeout_min": 5.0}
    assert rows["2"].used["cpus"] == 5.0
    assert rows["3"].allocated["gpus"] == 1.0


def test_usage_rows_of_job_that_did_not_start_have_no_start() -> None:
    held = usage_rows(RECORDED)["5"]
    assert (held.row.status.state, held.row.status.node, held.used) == ("CANCELLED", "", {})
    assert (held.submitted, held.started, held.ended) == (1796095179.0, None, 1796095189.0)


def test_usage_rows_state_is_that_of_the_job() -> None:
    assert usage_rows(RECORDED)["4_0"].row.status.state == "TIMEOUT"


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:01.250", 1.25), ("10:00", 600.0), ("01:00:00", 3600.0), ("2-01:00:00", 176400.0)]
)
def test_usage_rows_cpu_time_is_seconds(text, seconds) -> None:
    assert usage_rows([RECORDED[0].replace("00:00.663", text)])["1"].used["cpu"] == seconds


@pytest.mark.parametrize("line", ["", "7", "rest of a name|", "7|a|b|c|d|e|f|g|h|i|j|k|l|m|/r|with|bars"])
def test_usage_rows_unreadable_fields_are_unknown(line) -> None:
    assert all(not job.used and not job.allocated for job in usage_rows([line]).values())
