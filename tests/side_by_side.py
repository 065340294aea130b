"""A pytest plugin: how the tests are shared out to processes that run side by side (pytest-xdist, ``--dist loadfile``).

A file's tests stay together. So do all of the containers, which are brought up once, and all that start an Airflow of
their own, for several of these at once leave no time to each other. They take the longest, and so begin first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

#: Folders whose tests run in one process each, in the order in which they begin.
TOGETHER = ("tests/containers", "tests/airflow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Share out by files, but keep the tests of some folders in one process each."""
    if config.getoption("dist") != "loadfile":
        return None

    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = next((folder for folder in TOGETHER if nodeid.startswith(f"{folder}/")), None)
            return folder or super()._split_scope(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            for folder in reversed(TOGETHER):
                if folder in self.workqueue:
                    self.workqueue.move_to_end(folder, last=False)
            super()._assign_work_unit(node)

    return Scheduling(config, log)
