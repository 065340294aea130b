"""The markers that tests/conftest.py sets: `make quick` selects no test of a real part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("mark", "file"),
    [
        ("airflow", "hooks/test_sewer.py"),
        ("slurm", "slurm/test_outages.py"),  # by a fixture of a fixture
        (
            "slurm",
            "slurm/test_usage.py::test_max_rss_sums_all_processes_of_job[cluster_jobs]",
        ),  # by a parameter
        ("containers", "containers/test_kills.py"),
    ],
)
def test_marker_is_set_on_tests_of_a_real_part(mark, file):
    """And on all of them."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", f"tests/{file}"]
    done = subprocess.run([*command, "-m", f"not {mark}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout
