"""CI leaves no test out: the plugin that sees to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import pytest

def test_that_is_left_out():
    pytest.skip("nothing to test it with")

@pytest.mark.xfail
def test_that_is_known_to_fail():
    assert False

def test_that_runs():
    pass
"""


@pytest.mark.parametrize("side_by_side", [[], ["-n", "1"]], ids=["alone", "side by side"])
@pytest.mark.parametrize(("required", "exit_code", "summary"), [
    ("", 0, "1 passed, 1 skipped, 1 xfailed"),
    ("1", 1, "1 failed, 1 passed, 1 xfailed"),
])  # fmt: skip
def test_a_test_that_is_left_out_is_a_failure_where_all_are_required(
    tmp_path, side_by_side, required, exit_code, summary
):
    """A skip is a skip for a person, and an error for CI; what is known to fail is neither."""
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.left_out", "-ra", *side_by_side]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SEWER_TEST_REQUIRE_ALL": required}
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert summary in done.stdout
