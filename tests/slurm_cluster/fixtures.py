"""A pytest plugin: real Slurm clusters for tests in any folder.

``slurm`` and ``slurm_accounting`` are one cluster each for the whole session, started when the first test asks
for it. After each test they are put in order again: its jobs are cancelled, daemons and nodes are at work.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.slurm_cluster.cluster import SlurmCluster
from tests.slurm_cluster.packages import missing_packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SHARED = ("slurm", "slurm_accounting", "tracked_slurm")
_LEFT_OUT = "Slurm is not installed"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Return a cluster of three nodes without accounting, so without ``sacct``."""
    _need_packages(accounting=False)
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm_accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Return a cluster of three nodes with accounting."""
    _need_packages(accounting=True)
    with SlurmCluster(tmp_path_factory.mktemp("slurm-accounting"), accounting=True) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["linuxproc", "cgroup"])
def tracked_slurm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Return a cluster for each way of tracking processes: signals reach all of a job's, or the batch script only."""
    _need_packages(accounting=False)
    # As much time as modules of these tests take on a busy machine; the last value counts.
    cluster = SlurmCluster(tmp_path_factory.mktemp(request.param), proctrack=request.param, extra_conf="KillWait=20")
    if request.param == "cgroup" and not cluster.can_track_by_cgroup:
        pytest.skip("proctrack/cgroup needs root and cgroups of version 1")
    with cluster:
        yield cluster


@pytest.fixture
def needs_slurm() -> None:
    """Leave out a test that starts a cluster by itself where Slurm is missing."""
    _need_packages(accounting=False)


@pytest.fixture
def on_slurm(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """Let this process talk to the cluster without accounting, and return it."""
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    return slurm


@pytest.fixture
def make_slurm(tmp_path: Path) -> Iterator[Callable[..., SlurmCluster]]:
    """Return a starter of a cluster with other settings, those of SlurmCluster, for one test."""
    clusters = []

    def make(**settings: Any) -> SlurmCluster:
        _need_packages(accounting=settings.get("accounting", False))
        cluster = SlurmCluster(tmp_path / f"slurm-{next(numbers)}", **settings)
        clusters.append(cluster)
        cluster.start()
        return cluster

    numbers = itertools.count(1)
    yield make
    for cluster in clusters:
        cluster.stop()


@pytest.fixture(autouse=True)
def _clusters_are_left_in_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the clusters of the session in order after each test that uses them."""
    used = [request.getfixturevalue(name) for name in _SHARED if name in request.fixturenames]
    yield
    for cluster in used:
        cluster.restore()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were skipped without Slurm, and how to get it."""
    reports = [report for kind in ("skipped", "error", "failed") for report in terminalreporter.stats.get(kind, [])]
    left_out = sum(_LEFT_OUT in str(report.longrepr) for report in reports)
    if left_out:
        subject, how = ("1 test of Slurm was", "it") if left_out == 1 else (f"{left_out} tests of Slurm were", "them")
        packages = " ".join(missing_packages(accounting=True))
        terminalreporter.write_line(f"{subject} left out; to run {how}: apt-get install {packages}")


def _need_packages(*, accounting: bool) -> None:
    if missing_packages(accounting=accounting):
        # The packages of all tests, so that all of them print the same.
        pytest.skip(f"{_LEFT_OUT}; apt-get install {' '.join(missing_packages(accounting=True))}")
