"""`MonitorLease`: one process at a time monitors a job."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_sewer.slurm.job_directory import JobDirectory
from airflow_provider_sewer.slurm.monitor_lease import MonitorLease

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> JobDirectory:
    """Return a job directory."""
    made = JobDirectory(str(tmp_path / "run"))
    made.create()
    return made


def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_keep_by_holder_returns_true(directory):
    lease = MonitorLease(directory)
    lease.take()
    assert [lease.keep(), lease.keep()] == [True, True]


def test_take_by_second_process_replaces_holder(directory):
    first, second = MonitorLease(directory), MonitorLease(directory)
    first.take()
    second.take()
    assert (first.keep(), second.keep()) == (False, True)


def test_keep_replaces_dead_holder(directory):
    """A triggerer that was paused gets its trigger back when the one that took it over has died."""
    first, second = MonitorLease(directory, dead_after=0.1), MonitorLease(directory)
    first.take()
    second.take()
    assert not first.keep()
    until(first.keep)
    assert not second.keep()


def test_keep_does_not_replace_live_holder(directory):
    first = MonitorLease(directory, dead_after=2.0)
    second = MonitorLease(directory, touch_every=0.0)
    first.take()
    second.take()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert second.keep()
        assert not first.keep()
        time.sleep(0.05)


def test_take_by_earlier_try_does_not_replace_later_try(directory):
    """An earlier try was held up by a slow API server, while the scheduler started the next one."""
    earlier, later = MonitorLease(directory, 1), MonitorLease(directory, 2)
    later.take()
    earlier.take()
    assert (earlier.keep(), later.keep()) == (False, True)


def test_keep_touches_file_when_due(directory):
    lease = MonitorLease(directory, touch_every=0.0)
    lease.take()
    os.utime(directory.monitor, (0, 0))
    lease.keep()
    assert os.stat(directory.monitor).st_mtime > 0


def test_keep_recreates_removed_file(directory):
    lease = MonitorLease(directory, touch_every=0.0)
    lease.take()
    os.unlink(directory.monitor)
    assert lease.keep()
    assert directory.read_monitor()


@pytest.mark.parametrize("text", ["", "[]", '{"token": 7}', '{"token": "x"}', "{" * 9])
def test_keep_with_damaged_file_returns_true(directory, text):
    lease = MonitorLease(directory)
    lease.take()
    with open(directory.monitor, "w") as file:
        file.write(text)
    assert lease.keep()


def test_keep_without_job_directory_raises_nothing(tmp_path):
    lease = MonitorLease(JobDirectory(str(tmp_path / "gone")), touch_every=0.0)
    lease.take()
    assert lease.keep()
