"""Number of concurrent tasks that the limits on open files and on processes allow."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Open files that a run needs besides those of its tasks: log files, Slurm's commands, files read in between.
_FILES = 96
#: Open files of a task on this machine: two for each of its outputs, and those needed to start it.
_FILES_OF_A_TASK = 8
#: Processes and threads that a run needs besides one per running task: mainly Slurm's commands.
_PROCESSES = 48
#: Processes and threads of a task on this machine: its own, and the thread that follows it.
_PROCESSES_OF_A_TASK = 2

_CGROUPS = "/sys/fs/cgroup"


class Capacity(NamedTuple):
    """Number of tasks and jobs that one limit allows.

    :param tasks: tasks on this machine.
    :param jobs: jobs that are followed.
    :param limit: the limit, and its value.
    """

    tasks: float
    jobs: float
    limit: str


def capacities() -> list[Capacity]:
    """Return the number of tasks and jobs that each limit of this process allows, at least one of each."""
    return [_room_in_files(), *(_room_in_processes(left, limit) for left, limit in _processes_left())]


def _room_in_files() -> Capacity:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    left = _number(soft) - _FILES
    jobs = float("inf") if left > 0 else 1  # a job that is waited for holds none
    return Capacity(max(1, left // _FILES_OF_A_TASK), jobs, f"`ulimit -n` (open files) is {soft:,}")


def _room_in_processes(left: float, limit: str) -> Capacity:
    left -= _PROCESSES
    return Capacity(max(1, left // _PROCESSES_OF_A_TASK), max(1, left), limit)


def _processes_left() -> Iterator[tuple[float, str]]:
    """Yield the number of further processes and threads that each limit allows, and the limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() and soft != resource.RLIM_INFINITY:
        yield soft - _processes_of_this_user(), f"`ulimit -u` (processes) is {soft:,}"
    for folder in _cgroups():
        with suppress(OSError, ValueError):  # no limit, or no such controller
            most = int(_text(f"{folder}/pids.max"))
            yield most - int(_text(f"{folder}/pids.current")), f"pids.max of the cgroup {folder} is {most:,}"


def _processes_of_this_user() -> int:
    """Return the number of threads of this user, which the limit counts."""
    user, count = str(os.getuid()), 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in _text(f"/proc/{pid}/status").splitlines() if ":\t" in line)
            if fields.get("Uid", "").split("\t")[0] == user:
                count += int(fields.get("Threads", 1))
    return count


def _cgroups() -> Iterator[str]:
    """Yield the folders of this process's cgroups, and of their parents, that can limit processes."""
    lines: list[str] = []
    with suppress(OSError):
        lines = _text("/proc/self/cgroup").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        root = f"{_CGROUPS}/pids" if controllers else _CGROUPS
        while path not in ("", "/"):
            yield f"{root}{path}"
            path = os.path.dirname(path)
        yield root  # in a container, the container's own


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _number(limit: int) -> float:
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def usable_processors() -> int:
    """Return the number of processors that this process may use, which a container or a job can restrict.

    Not every cluster binds a job to its processors. Then only ``SLURM_CPUS_ON_NODE`` has their number on this node
    (sbatch(1), OUTPUT ENVIRONMENT VARIABLES).
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allocated = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return min(usable, int(allocated)) if allocated.isdecimal() and int(allocated) else usable
