"""Number of tasks and jobs that the limits of a process allow."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SHOW = """
import json, resource, sys
from airflow_provider_sewer.execution.concurrency_limits import capacities
limit = getattr(resource, sys.argv[1])
resource.setrlimit(limit, (int(sys.argv[2]), resource.getrlimit(limit)[1]))
print(json.dumps([[room.tasks, min(room.jobs, 1e9), room.limit] for room in capacities()]))
"""


def capacities(limit: str, value: int, *before: str) -> list[list]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [*before, sys.executable, "-c", SHOW, limit, str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    if before and done.returncode and "unshare" in done.stderr:
        pytest.skip("this system makes no user namespaces")
    return json.loads(done.stdout)


@pytest.mark.parametrize(("limit", "tasks", "jobs"), [(256, 20, 1e9), (112, 2, 1e9), (64, 1, 1)])
def test_open_file_limit_counts_local_tasks_only(limit: int, tasks: int, jobs: float) -> None:
    """A job that is waited for holds no file open."""
    assert capacities("RLIMIT_NOFILE", limit)[0] == [tasks, jobs, f"`ulimit -n` (open files) is {limit}"]


def test_process_limit_counts_processes_of_the_user() -> None:
    """Each job has a thread, and each task on this machine a thread and a process. Root has no such limit."""
    before = () if os.geteuid() else ("unshare", "--user")
    found = [room for room in capacities("RLIMIT_NPROC", 30_000, *before) if "ulimit -u" in room[2]]

    assert len(found) == 1
    tasks, jobs, limit = found[0]
    assert limit == "`ulimit -u` (processes) is 30,000"
    assert 20_000 < jobs < 30_000
    assert tasks == jobs // 2
