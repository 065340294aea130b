"""A pytest plugin: where everything has to be there, a test that is left out has failed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure under SEWER_TEST_REQUIRE_ALL."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("SEWER_TEST_REQUIRE_ALL"):
        report.outcome = "failed"
        report.longrepr = f"left out, but SEWER_TEST_REQUIRE_ALL is set: {report.longrepr}"
    return report
