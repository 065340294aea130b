"""The drill of `make drill` in a short form, and the processes left after terminating one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .deployment import still_running

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".dev"))
from drill.postgres import postgres_bin  # noqa: E402

sys.path.remove(str(ROOT / ".dev"))


@pytest.fixture
def start_drill(needs_slurm, tmp_path):
    """Return a function that starts a drill in the folder `drill`; it is ended after the test."""
    if postgres_bin() is None:
        pytest.skip("PostgreSQL is not installed; apt-get install postgresql")
    drills = []

    def start(*arguments):
        command = [sys.executable, "-m", "drill", "--folder", str(tmp_path / "drill"), *arguments]
        pipe = subprocess.PIPE
        drills.append(subprocess.Popen(command, cwd=ROOT / ".dev", stdout=pipe, stderr=pipe, text=True))
        return drills[-1]

    yield start
    for drill in drills:
        drill.terminate()
        drill.communicate(timeout=120)


def test_drill_short_form_passes_all_checks(start_drill, tmp_path):
    drill = start_drill("--tasks", "12", "--seconds", "75", "--settle", "240", "--seed", "13")
    stdout, stderr = drill.communicate(timeout=600)

    stories = [file.read_text() for file in (tmp_path / "drill").glob("faults/*")]
    assert drill.returncode == 0, "\n\n".join([stdout, stderr, *stories])
    actions = [json.loads(line)["how"] for line in (tmp_path / "drill" / "signals.jsonl").read_text().splitlines()]
    assert actions.count("SIGKILL") + actions.count("SIGSTOP") >= 5


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_terminated_drill_leaves_no_process(start_drill, tmp_path, how):
    drill = start_drill("--seconds", "600")
    for line in drill.stderr:
        if "sending signals" in line:
            break
    processes = all_of(drill.pid, tmp_path / "drill")
    database = Path(re.search('"(/tmp/postgres-[^/]*)', (tmp_path / "drill" / "postgres.log").read_text())[1])

    drill.send_signal(how)

    drill.wait(60)
    deadline = time.monotonic() + 60
    while (left := still_running(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert not database.exists()
    assert {"postgres", "slurmctld", "slurmd", "munged"} <= set(processes.values())
    assert len(processes) > 20


def all_of(drill: int, folder: Path) -> dict[psutil.Process, str]:
    """Return all processes of a drill and their names: its descendants, and those of the cluster's keeper."""
    (cluster,) = [path for path in Path("/tmp").glob("slurm-*") if (path / "log").resolve() == folder / "slurm" / "log"]
    keepers = [
        process for process in psutil.process_iter(["cmdline"]) if str(cluster) in (process.info["cmdline"] or [])
    ]
    processes = {}
    for top in [psutil.Process(drill), *keepers]:
        with suppress(psutil.NoSuchProcess):  # the drill itself ends some of them
            for process in [top, *top.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    processes[process] = process.name()
    return processes
