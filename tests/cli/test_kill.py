"""`sppe run` is killed at random moments: nothing that has succeeded is lost, and nothing half-written has a real name.

``SEWER_TEST_KILLS`` is the number of kills, 200 for a thorough run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

KILLS = int(os.environ.get("SEWER_TEST_KILLS", "16"))
AT_ONCE = 3
SIZE = 200_000

#: Writes its products bit by bit, each whole one ending with a line that says so, and keeps a diary.
WRITER = f"""
import os, sys

def note(what):
    diary = os.open("diary", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(diary, f"{{what}} {{sys.argv[1]}}\\n".encode())

note("began")
for path in sys.argv[2:]:
    is_folder = os.path.isdir(path)
    for name in (("one", "two", "end") if is_folder else ("",)):
        with open(os.path.join(path, name) if is_folder else path, "w") as file:
            for _ in range(8):
                file.write("x" * {SIZE // 8})
                file.flush()
            file.write("\\nend\\n")
note("ended")
"""

FLOW = """
from airflow_provider_sewer import Dependency, Product, Task, workflow

raw = Task("raw", "writer", args=["raw", Product("build/raw"), Product("build/more")], workdir=".")
folder = Task("folder", "writer", args=["folder", Product("build/folder/")], dependencies="build/raw", workdir=".")
used = Task("used", "writer", args=["used", Product("build/used", temporary=True)], workdir=".")
last = Task(
    "last", "writer", args=["last", Product("build/last")], workdir=".",
    dependencies=["build/folder", "build/more", "build/used"],
)
"""


class Killed:
    """A folder in which the workflow is run and killed until it comes to its end."""

    def __init__(self, folder: Path, environment: dict[str, str], chance: random.Random) -> None:
        self.folder = folder
        self.kills = 0
        self._environment = environment
        self._chance = chance
        folder.mkdir()
        (folder / "writer.py").write_text(WRITER)
        (folder / "flow.py").write_text(FLOW)

    def run_to_the_end(self) -> None:
        """Kill and resume it until a run is faster than its killer."""
        is_first, longest = True, 0.4
        while self._is_killed(is_first, self._chance.uniform(0, longest)):
            self.kills += 1
            self._look()
            is_first = not self._succeeded()  # without any success, one begins as well anew
            longest += 0.05
        self._look()
        assert self._succeeded() == {"raw", "folder", "used", "last"}
        assert self._real_names() == {"raw", "more", "folder", "last"}

    def _is_killed(self, is_first: bool, after: float) -> bool:
        """Run it, kill it some seconds after it has begun, and return whether it was still running."""
        self._before = self._succeeded() if not is_first else set()
        self._diary = len(self._entries("began"))
        process = subprocess.Popen(
            [sys.executable, "-c", "from airflow_provider_sewer.cli import main; main()", "run", "-p", "flow.py",
             "-i", sys.executable, "--state", "state", *([] if is_first else ["--resume"])],
            cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while process.poll() is None and not self._is_begun(process.pid):
            time.sleep(0.005)
        try:
            _, stderr = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            self._kill(process)
            _, stderr = process.communicate()
            # 1: what it had started was killed first, and it was quick to say that this has failed.
            if process.returncode in (-signal.SIGKILL, 1):
                return True
        assert process.returncode == 0, stderr
        return False

    def _is_begun(self, pid: int) -> bool:
        path = self.folder / "state"
        return path.exists() and f'"pid": {pid},' in path.read_text()

    def _kill(self, process: subprocess.Popen[str]) -> None:
        """Kill it alone, or together with all it has started, in any order."""
        main = psutil.Process(process.pid)
        family = [main]
        if self._chance.random() < 0.5:
            family += main.children(recursive=True)
            self._chance.shuffle(family)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()

    def _look(self) -> None:
        """Check that no success was run again, and that each file with a real name is whole."""
        again = set(self._entries("began")[self._diary :]) & self._before
        assert not again
        for name in self._real_names():
            path = self.folder / "build" / name
            files = [path / part for part in ("one", "two", "end")] if path.is_dir() else [path]
            for file in files:
                assert file.stat().st_size == SIZE + len("\nend\n"), file
        succeeded = self._succeeded()
        assert self._before <= succeeded
        assert succeeded <= set(self._entries("ended"))

    def _succeeded(self) -> set[str]:
        """Return the tasks that have succeeded by the state file; all of its lines but the last are whole."""
        path = self.folder / "state"
        if not path.exists():
            return set()
        *lines, _unfinished = path.read_text().split("\n")
        states = {line.get("task"): line.get("state") for line in map(json.loads, lines)}
        return {name for name, state in states.items() if state == "succeeded"}

    def _real_names(self) -> set[str]:
        build = self.folder / "build"
        names = os.listdir(build) if build.exists() else []
        return {name for name in names if name != ".sewer" and not name.endswith(".failed")}

    def _entries(self, kind: str) -> list[str]:
        path = self.folder / "diary"
        lines = path.read_text().splitlines() if path.exists() else []
        return [name for word, name in map(str.split, lines) if word == kind]


@pytest.mark.slow
def test_run_killed_at_random_moments_resumes_without_loss(sppe, tmp_path) -> None:
    """After each kill the state can be read, recorded successes are never run again, and a resumed run ends."""
    seed = int(os.environ.get("SEWER_TEST_SEED", time.time_ns() % 1_000_000))
    rounds: list[Killed] = []

    def kill_and_resume(worker: int) -> None:
        chance = random.Random(f"{seed}-{worker}")
        while sum(each.kills for each in rounds) < KILLS:
            one = Killed(tmp_path / f"{worker}-{len(rounds)}", sppe.environment(), chance)
            rounds.append(one)
            one.run_to_the_end()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(kill_and_resume, worker) for worker in range(AT_ONCE)]:
            assert done.result() is None, f"SEWER_TEST_SEED={seed}"

    assert sum(each.kills for each in rounds) >= KILLS
