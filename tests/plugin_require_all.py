"""A pytest plugin: no test is left out unnoticed, where everything has to be there or a run has broken off."""

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


#: Errors of pytest itself, not of a test.
_broken: list[object] = []


def pytest_internalerror(excrepr: object) -> None:
    """Record that a run has broken off, or a process of it, which pytest-xdist may survive."""
    _broken.append(excrepr)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Fail a run that has broken off, and forget its failures: `--last-failed` must run the tests it never reached."""
    yield
    if _broken:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        if cache := getattr(session.config, "cache", None):
            cache.set("cache/lastfailed", {})
