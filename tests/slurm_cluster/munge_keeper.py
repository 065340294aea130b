"""Holds the processes of one cluster together, and ends them all as soon as their owner is gone.

It runs as a process of its own, as ``python munge_keeper.py OWNER RUN_FOLDER CGROUP...``, reads one request
in JSON a line and answers each with one line. All that a daemon leaves behind, down to the processes of a
job that have detached themselves, becomes a child of the keeper and not of init. So it can find and end
all of this cluster and nothing of any other, and no zombie stays behind.

It is no child of its owner either: tests that look for processes left behind do not see a cluster.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE = 0.01
# A process that survives SIGKILL for so long is stuck in the kernel; the owner need not be stuck, too.
_GIVE_UP = 20.0


class Keeper:
    """Starts processes by name, passes signals on to them, and knows which still run."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}

    def start(self, name: str, argv: list[str], env: dict[str, str], output: str) -> int:
        """Start a program in a session of its own, and return its pid."""
        files = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        program = shutil.which(argv[0], path=env["PATH"]) or argv[0]
        # Its end is not to be heard of before its pid is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            pid = os.posix_spawn(program, argv, env, file_actions=files, setsid=True, setsigmask=[])
            self._pids[name] = pid
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        return pid

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process that runs."""
        if not self.runs(name):
            raise ProcessLookupError(f"{name} does not run")
        os.kill(self._pids[name], number)

    def runs(self, name: str) -> bool:
        """Return whether a process has been started and has not ended."""
        self.reap()
        return name in self._pids

    def pids(self) -> list[int]:
        """Return the pids of all processes that are of this cluster: daemons, step daemons, jobs."""
        self.reap()
        return descendants(os.getpid())

    def reap(self, *_: Any) -> None:
        """Take notice of the children that have ended, adopted ones included."""
        with suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._pids = {name: other for name, other in self._pids.items() if other != pid}

    def end_all(self) -> list[int]:
        """Kill all processes of this cluster, and return those that cannot be killed."""
        give_up_at = time.monotonic() + _GIVE_UP
        # Repeatedly, because children of a process that was killed just now are adopted only then.
        while (left := self.pids()) and time.monotonic() < give_up_at:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_PAUSE)
        return left


def descendants(ancestor: int) -> list[int]:
    """Return the living processes below one, parents first."""
    children: dict[int, list[int]] = {}
    for folder in glob.glob("/proc/[0-9]*"):
        with suppress(OSError), open(f"{folder}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if state not in b"ZX":
                children.setdefault(int(parent), []).append(int(os.path.basename(folder)))
    found = [ancestor]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def thaw(cgroups: list[str]) -> None:
    """Thaw all processes that a step daemon has frozen: SIGKILL does not end a process in a frozen cgroup."""
    for cgroup in cgroups:
        for folder, _, files in os.walk(cgroup):
            if "freezer.state" in files:
                with suppress(OSError), open(f"{folder}/freezer.state", "w") as state:
                    state.write("THAWED")


def main(owner: int, run_folder: str, cgroups: list[str]) -> None:
    """Serve the owner until it sends the end or is gone, then clean up."""
    if os.fork():
        os._exit(0)
    keeper = Keeper()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot adopt the processes of the cluster")
    signal.signal(signal.SIGCHLD, keeper.reap)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit())
    try:
        _serve(keeper, owner)
    finally:
        thaw(cgroups)
        left = keeper.end_all()
        shutil.rmtree(run_folder, ignore_errors=True)
        # The files in there are the kernel's and go with their folder.
        for cgroup in cgroups:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)
        with suppress(BrokenPipeError):
            _answer({"left": left})


def _serve(keeper: Keeper, owner: int) -> None:
    watched = [0]
    # The end of the pipe alone is not enough: a fork of the owner holds it as well.
    with suppress(OSError, AttributeError):
        watched.append(os.pidfd_open(owner))
    text = b""
    while True:
        ready = select.select(watched, [], [])[0]
        if 0 not in ready or not (more := os.read(0, 1 << 16)):
            return
        text += more
        while b"\n" in text:
            line, _, text = text.partition(b"\n")
            request = json.loads(line)
            ask = request.pop("ask")
            if ask == "end":
                return
            try:
                _answer({"answer": getattr(keeper, ask)(**request)})
            except Exception as error:
                _answer({"error": f"{type(error).__name__}: {error}"})


def _answer(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
