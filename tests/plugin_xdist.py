"""A pytest plugin: how the tests are shared out to processes that run side by side (pytest-xdist, ``--dist loadfile``).

A file's tests stay together, and so do all of the containers, which are brought up once. These take the longest, much
of it waiting, and so begin first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

CONTAINERS = "tests/containers"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Share out by files, but keep the tests of the containers in one process."""
    if config.getoption("dist") != "loadfile":
        return None

    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return CONTAINERS if nodeid.startswith(f"{CONTAINERS}/") else super()._split_scope(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            if CONTAINERS in self.workqueue:
                self.workqueue.move_to_end(CONTAINERS, last=False)
            super()._assign_work_unit(node)

    return Scheduling(config, log)
