"""A lease: of several processes, one has the right to go on, and it ends by itself with its holder."""

from __future__ import annotations

import os
import threading

import pytest

from airflow_provider_sewer.slurm.arrays import array_lease as module
from airflow_provider_sewer.slurm.arrays.array_lease import Lease, LeaseLost

SECONDS = 10.0


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets time pass, on the monotonic clock."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


@pytest.fixture
def lease(tmp_path):
    """Return a function that creates a lease as another process does."""
    return lambda: Lease(str(tmp_path), SECONDS)


def test_take_fails_until_give_back(lease, clock):
    """The next one takes it at once then."""
    first, second = lease(), lease()
    assert first.take()
    assert not second.take()
    first.keep()
    first.release()
    assert second.take()
    second.keep()


def test_take_by_many_threads_succeeds_once(lease):
    """The quickest of them."""
    many = [lease() for _ in range(16)]
    barrier, took = threading.Barrier(16), []

    def take(one: Lease) -> None:
        barrier.wait()
        took.append(one.take())

    threads = [threading.Thread(target=take, args=(one,)) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(took) == [False] * 15 + [True]


def test_untouched_lease_expires(lease, clock):
    """It ends so long after its last touch, by the clock of who waits for it; its holder finds out in time."""
    first, second = lease(), lease()
    assert first.take()
    assert not second.take()
    clock(SECONDS - 1)
    assert not second.take()
    clock(1)
    assert second.take()
    second.keep()
    with pytest.raises(LeaseLost):
        first.keep()
    first.release()
    assert not lease().take(), "what was lost cannot be given back"


def test_keep_extends_lease(lease, clock, tmp_path):
    """However long it takes."""
    first, second = lease(), lease()
    assert first.take()
    for turn in range(5):
        assert not second.take()
        clock(SECONDS - 1)
        os.utime(tmp_path / "holder-1", (turn, turn))  # as keep() does, at a distinguishable time of the file system
        first._touched = module.time.monotonic()
    assert not second.take()
    first.keep()


def test_keep_after_suspend_raises_lease_lost(lease, clock):
    """As that of a machine which was suspended: also if the other one has given it back since."""
    first, second = lease(), lease()
    assert first.take()
    assert not second.take()
    clock(SECONDS)
    assert second.take()
    second.release()
    clock(-SECONDS)
    with pytest.raises(LeaseLost):
        first.keep()
