"""The markers that tests/conftest.py sets: `make quick` selects no test of a real part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


# Files that do not import Airflow, so that their collection is quick.
@pytest.mark.parametrize(
    ("mark", "files"),
    [
        ("airflow", ["dags/test_digits_project.py"]),  # by its folder
        (
            "slurm",
            [
                "slurm/test_outages.py",  # by a fixture of a fixture
                "slurm/test_job_usage.py::test_max_rss_sums_all_processes_of_job[cluster_jobs]",  # by a parameter
            ],
        ),
        ("containers", ["containers/test_kills.py"]),
    ],
)
def test_marker_is_set_on_tests_of_a_real_part(mark, files):
    """And on all of them."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "-m", f"not ({mark})"]
    tests = [f"tests/{file}" for file in files]
    done = subprocess.run([*command, *tests], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout


@pytest.mark.slow
def test_tests_above_airflow_line_are_not_imported_if_excluded():
    """Neither Airflow nor their own imports cost time then."""
    collect = "import sys, pytest; pytest.main(['-q', '--collect-only', '-m', 'not airflow and not slurm', 'tests'])"
    code = f"{collect}; sys.exit('airflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "test_markers.py" in done.stdout
