"""``sppe pools``: limits of resources in a plain run hold under Airflow too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FLOW = """
from airflow_provider_sewer import Task
Task("a", "job", resources={"gpu": 2})
Task("b", "job", resources={"licence of x": 1})
"""


@pytest.fixture
def sppe(tmp_path):
    """Run ``sppe pools`` on the workflow file."""
    (tmp_path / "flow.py").write_text(FLOW)

    def run(*arguments: str, **options) -> subprocess.CompletedProcess:
        command = [
            sys.executable,
            "-c",
            "from airflow_provider_sewer.cli import main; main()",
            "pools",
            "-p",
            "flow.py",
        ]
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, **options
        )

    return run


def test_pools_prints_airflow_commands(sppe):
    """They can be pasted into a shell where Airflow is."""
    done = sppe("--limit", "gpu=4", "--limit", "licence of x=1")

    assert done.stdout.splitlines() == [
        "airflow pools set gpu 4 'for workflow'",
        "airflow pools set 'licence of x' 1 'for workflow'",
    ]


def test_pools_rejects_resource_without_limit(sppe):
    """A pool has slots."""
    done = sppe("--limit", "gpu=4")

    assert done.returncode == 2
    assert "no limit for resource 'licence of x'; pass --limit licence of x=N" in done.stderr


def test_pools_make_runs_airflow(sppe, airflow_home, monkeypatch):
    """By the one that is on PATH."""
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    done = sppe("--limit", "gpu=3", "--limit", "licence of x=1", "--make")
    assert done.returncode == 0, done.stderr

    with create_session() as session:
        slots = {pool.pool: pool.slots for pool in session.query(Pool).all()}
    assert (slots["gpu"], slots["licence of x"]) == (3, 1)
