"""Usage in the output of sacct, as versions 22.05 to 25.11 print it."""

from __future__ import annotations

import pytest

from airflow_provider_sewer.slurm.parsing import Row, usage_rows


def test_usage_rows_memory_is_the_largest_of_a_step() -> None:
    rows = usage_rows(
        [
            "7|90|01:30.500||/runs/1|w.a-1", "7.batch|90|01:30|5268K||batch", "7.0|80|00:10.5|2.5M||python",
            "8_3|0|00:00:00|||w.b-2",
        ]
    )  # fmt: skip
    assert rows["7"] == (Row("/runs/1", "w.a-1"), {"elapsed": 90.0, "cpu": 90.5, "max_rss": 5268 * 1024.0})
    assert rows["8_3"] == (Row("", "w.b-2"), {})


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:01.250", 1.25), ("10:00", 600.0), ("01:00:00", 3600.0), ("2-01:00:00", 176400.0)]
)
def test_usage_rows_cpu_time_is_seconds(text, seconds) -> None:
    assert usage_rows([f"7|1|{text}||/r|name"])["7"].used["cpu"] == seconds


@pytest.mark.parametrize("line", ["", "7", "rest of a name|", "7|x|y|z|/r|with|bars"])
def test_usage_rows_unreadable_fields_are_unknown(line) -> None:
    assert all(not row.used for row in usage_rows([line]).values())
