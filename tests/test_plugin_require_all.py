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
def test_require_all_fails_on_skipped_test(tmp_path, side_by_side, required, exit_code, summary):
    """A skip is a skip for a user, and an error for CI; an expected failure is neither."""
    (tmp_path / "test_some.py").write_text(TESTS)
    done = pytest_in(tmp_path, "-p", "no:cacheprovider", "-ra", *side_by_side, required=required)
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert summary in done.stdout


@pytest.mark.parametrize("side_by_side", [[], ["-n", "2"]], ids=["alone", "side by side"])
def test_require_all_runs_all_tests_after_interrupted_run(tmp_path, side_by_side):
    """One of two processes can end over an error of pytest's own, and take a test along of which nothing is heard."""
    (tmp_path / "test_some.py").write_text("def test_one():\n    pass\n\ndef test_two():\n    assert False\n")
    breaks = tmp_path / "conftest.py"
    breaks.write_text("def pytest_runtest_makereport(item):\n    assert item.name != 'test_two'\n")
    assert pytest_in(tmp_path, *side_by_side).returncode == pytest.ExitCode.INTERNAL_ERROR
    breaks.unlink()

    done = pytest_in(tmp_path, "--last-failed", "--last-failed-no-failures", "all")

    assert "1 failed, 1 passed" in done.stdout


def pytest_in(folder: Path, *options: str, required: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SEWER_TEST_REQUIRE_ALL": required}
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # other plugins take longer to import than these tests run
    command = [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "tests.plugin_require_all", *options]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
